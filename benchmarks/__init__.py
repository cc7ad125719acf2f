"""Measurements beside the peers that are installed; each says what it lacks and goes on."""
