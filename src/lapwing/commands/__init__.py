"""Commands that do not deploy: ship, release, doctor, verify, demo."""
