"""Observed state: what the agent reports (status, events, usage) and how it is read."""
