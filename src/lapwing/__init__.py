"""Lapwing takes a web application from a git commit to zero-downtime production."""

__version__ = "0.1.0"
DISTRIBUTION = "lapwing-deploy"
"""The name on the package index, where `lapwing` is another project."""
