"""Desired state: the git repository that says what runs where."""
