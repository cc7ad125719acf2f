"""Observed state: status, events, drift."""
