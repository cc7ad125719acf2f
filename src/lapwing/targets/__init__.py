"""Targets: where one environment of one stack runs, and every verb that changes or reads it."""
