"""Envoy configuration that a machine and the edge of a cluster have in common.

Source for every field: Envoy's v3 API reference, release 1.40.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
TYPE = "type.googleapis.com/envoy"
STREAM_IDLE = "3600s"
"""How long a stream may be silent. Envoy's default of 5 minutes would close quiet websockets."""
RETRIES: Json = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 4,
}
"""A request is retried only if no upstream can have started to process it."""
LIMITS: Json = {
    "thresholds": [
        {
            "max_connections": 16384,
            "max_pending_requests": 16384,
            "max_requests": 16384,
            "max_retries": 1024,
        }
    ]
}
"""Circuit breakers. The defaults (1,024) would answer 503 under a load that replicas can serve."""


def route_match(prefix: str) -> Json:
    """Match a path and everything below it; `/api` does not match `/apiary`."""
    return {"prefix": "/"} if prefix == "/" else {"path_separated_prefix": prefix}


def duration(seconds: float) -> str:
    """Format seconds for Envoy: decimal, never with an exponent, to the nanosecond.

    Source: protobuf, JSON mapping of google.protobuf.Duration.
    """
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def request_timeout(timeout: float | None) -> str:
    """Format the maximum duration of a request; None means no limit."""
    return "0s" if timeout is None else duration(timeout)


def socket_address(address: Any, port: int) -> Json:
    """Build an address of a host or an interface."""
    return {"socket_address": {"address": address, "port_value": port}}


def http_connection_manager(options: Json) -> Json:
    """Build the network filter that speaks HTTP."""
    kind = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {"@type": f"{TYPE}.{kind}", **options},
    }


def router(**options: Any) -> Json:
    """Build the HTTP filter that forwards requests."""
    return {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": f"{TYPE}.extensions.filters.http.router.v3.Router", **options},
    }


def downstream_tls(certificates: Json) -> Json:
    """Build the transport socket that terminates TLS; `certificates` says where they are."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{TYPE}.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                **certificates,
            },
        },
    }


def upstream_http(**options: Any) -> Json:
    """Build the options of a cluster that speaks HTTP/1.1; `options` are its common ones."""
    kind = "extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        f"envoy.{kind}": {
            "@type": f"{TYPE}.{kind}",
            "common_http_protocol_options": options,
            "explicit_http_config": {"http_protocol_options": {}},
        }
    }
