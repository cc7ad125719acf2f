"""Builds: from the source of a service to an immutable release."""
