"""Artifacts: source in, immutable releases out."""
