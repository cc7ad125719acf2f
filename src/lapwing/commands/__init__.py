"""Verbs that are no deployment: ship, release, doctor, verify, demo."""
