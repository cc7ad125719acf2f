"""Plan: what an environment should be, and what would change. Pure."""
