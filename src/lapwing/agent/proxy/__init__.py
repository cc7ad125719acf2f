"""Envoy, the only listener: its files, its process, its counters."""
