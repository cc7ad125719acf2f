"""The document of one environment: what it should run, and what would change."""
