"""The metrics of Envoy for Prometheus: a read-only path of its admin interface, on loopback.

Each process of Envoy counts only the requests that it serves, and its metrics have a separate port:
behind a shared port, each scrape would reach a different process.
"""

from __future__ import annotations

from pathlib import Path

from lapwing.render.envoy import Json, http_connection_manager, router, socket_address

ADDRESS = "127.0.0.1"
_NAME = "metrics"


def listener(port: int) -> Json:
    """Render the listener: `GET /metrics`, and no other path of the admin interface."""
    get = {"name": ":method", "string_match": {"exact": "GET"}}
    route = {
        "match": {"path": "/metrics", "headers": [get]},
        "route": {"cluster": _NAME, "prefix_rewrite": "/stats/prometheus"},
    }
    host = {"name": _NAME, "domains": ["*"], "routes": [route]}
    options = {
        "stat_prefix": _NAME,
        "route_config": {"name": _NAME, "virtual_hosts": [host]},
        "http_filters": [router()],
    }
    return {
        "name": _NAME,
        "address": socket_address(ADDRESS, port),
        "filter_chains": [{"filters": [http_connection_manager(options)]}],
    }


def cluster(admin: Path) -> Json:
    """Render the cluster of the admin interface, a Unix socket."""
    endpoint = {"endpoint": {"address": {"pipe": {"path": str(admin)}}}}
    return {
        "name": _NAME,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": _NAME,
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }
