"""Offline upgrades: migrations that need the database for themselves (`mode: offline`)."""
