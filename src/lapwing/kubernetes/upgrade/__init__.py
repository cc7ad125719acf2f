"""Upgrades that need the database for themselves: `migrate: {mode: offline}`."""
