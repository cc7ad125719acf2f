"""Rendering: from a stack to files that other tools read. Pure: text out, nothing is written."""
