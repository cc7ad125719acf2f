"""Ranges of addresses that the rendered infrastructure and the rendered policies have in common."""

from __future__ import annotations

NODES = "10.10.0.0/20"
"""The subnet of the nodes, which also has the private endpoints of MongoDB Atlas."""
DATABASES = "10.40.0.0/20"
"""The range that is reserved for Cloud SQL and Memorystore (private services access)."""
PRIVATE_NETWORKS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")
"""Addresses outside the internet: private networks, and the metadata server."""
ATLAS_PORTS = (27015, 27017)
"""Port range of MongoDB Atlas, also behind a private endpoint."""
