"""Renders the part of Envoy's configuration that changes while it runs.

Four kinds of file, each replaced by a rename (Envoy watches for renames, not for edits):

    cds.json          every cluster
    eds/<name>.json   the endpoints of one cluster, so a replica that moves to another port is a
                      change of endpoints and not a new cluster with new connections
    rds.json          every route: one rename switches all services
    sds.json          the certificate

Source for every field: Envoy's v3 API reference, release 1.40.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from lapwing.agent.proxy.model import Cluster, Route, RouteTable, VirtualHost
from lapwing.render.envoy import (
    LIMITS,
    RETRIES,
    STREAM_IDLE,
    TYPE,
    Json,
    duration,
    request_timeout,
    route_match,
)

ROUTES = "lapwing"
"""The name of the route configuration."""
UPSTREAM_IDLE = "1s"
"""How long an unused connection to a replica is kept: shorter than the keep-alive of any common
server (gunicorn 2 s, Node and uvicorn 5 s), so no request is sent on one that is being closed."""


def clusters(all_clusters: tuple[Cluster, ...], folder: Path, version: str) -> Json:
    """Render the response of the cluster discovery service."""
    return {
        "version_info": version,
        "resources": [_cluster(c, folder) for c in all_clusters],
    }


def endpoints_file(cluster: str) -> str:
    """Return the file name for the endpoints of a cluster, relative to the xDS folder."""
    return f"eds/{hashlib.sha256(cluster.encode()).hexdigest()[:20]}.json"


def endpoints(cluster: Cluster, version: str) -> Json:
    """Render the response of the endpoint discovery service for one cluster."""
    return {
        "version_info": version,
        "resources": [
            {
                "@type": f"{TYPE}.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": cluster.name,
                "endpoints": [
                    {"lb_endpoints": [{"endpoint": {"address": _loopback(p)}}]}
                    for p in cluster.ports
                ],
            }
        ],
    }


def routes(table: RouteTable) -> Json:
    """Render the response of the route discovery service: the whole route table."""
    return {
        "version_info": table.version,
        "resources": [
            {
                "@type": f"{TYPE}.config.route.v3.RouteConfiguration",
                "name": ROUTES,
                "virtual_hosts": [_virtual_host(h) for h in table.hosts] + [_not_found()],
            }
        ],
    }


def certificate(file: Path, version: str) -> Json:
    """Render the response of the secret discovery service. `file` has key and chain; it is
    referenced, not included, so the key is in one place only."""
    return {
        "version_info": version,
        "resources": [
            {
                "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.Secret",
                "name": "server",
                "tls_certificate": {
                    "certificate_chain": {"filename": str(file)},
                    "private_key": {"filename": str(file)},
                },
            }
        ],
    }


def from_file(path: Path) -> Json:
    """Render a subscription to a file."""
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


def _loopback(port: int) -> Json:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(cluster: Cluster, folder: Path) -> Json:
    return {
        "@type": f"{TYPE}.config.cluster.v3.Cluster",
        "name": cluster.name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": from_file(folder / endpoints_file(cluster.name))},
        "connect_timeout": "1s",
        "health_checks": [_health_check(cluster)],
        "outlier_detection": {
            # Only connection failures count; a 500 is a response of the application.
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 3,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_consecutive_5xx": 0,
            "enforcing_consecutive_gateway_failure": 0,
            "enforcing_success_rate": 0,
            "enforcing_local_origin_success_rate": 0,
            "interval": "1s",
            "base_ejection_time": "2s",
            "max_ejection_percent": 50,
        },
        "circuit_breakers": LIMITS,
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": UPSTREAM_IDLE},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }


def _health_check(cluster: Cluster) -> Json:
    interval = duration(cluster.health_interval)
    check: Json = {
        "timeout": duration(cluster.health_timeout),
        "interval": interval,
        "no_traffic_interval": interval,
        "unhealthy_interval": "1s",
        "healthy_threshold": 1,
        "unhealthy_threshold": 3,
        "reuse_connection": False,
    }
    if cluster.health_path is None:
        return check | {"tcp_health_check": {}}
    statuses = [{"start": 200, "end": 400}]
    return check | {
        "http_health_check": {
            "host": "localhost",
            "path": cluster.health_path,
            "expected_statuses": statuses,
        }
    }


def _virtual_host(host: VirtualHost) -> Json:
    return {
        "name": host.name,
        "domains": list(host.domains),
        "retry_policy": {
            **RETRIES,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": {
                        "@type": f"{TYPE}.extensions.retry.host.previous_hosts.v3"
                        ".PreviousHostsPredicate"
                    },
                }
            ],
            "host_selection_retry_max_attempts": 3,
            "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.5s"},
        },
        "routes": [_route(r) for r in host.routes],
    }


def _route(route: Route) -> Json:
    match = route_match(route.prefix)
    if route.cluster is None:
        return {
            "match": match,
            "direct_response": {
                "status": 503,
                "body": {"inline_string": "This service is not running at the moment.\n"},
            },
            "response_headers_to_add": [{"header": {"key": "retry-after", "value": "5"}}],
        }
    timeout = request_timeout(route.timeout)
    return {
        "match": match,
        "route": {"cluster": route.cluster, "timeout": timeout, "idle_timeout": STREAM_IDLE},
    }


def _not_found() -> Json:
    return {
        "name": "not-found",
        "domains": ["*"],
        "routes": [
            {
                "match": {"prefix": "/"},
                "direct_response": {
                    "status": 404,
                    "body": {
                        "inline_string": "No stack has this host name. "
                        "`lapwing status` shows the URL of each stack.\n"
                    },
                },
            }
        ],
    }
