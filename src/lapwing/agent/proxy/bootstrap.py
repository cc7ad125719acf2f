"""Renders the part of Envoy's configuration that does not change while it runs.

One listener, TLS only, for HTTP/1.1 and HTTP/2, with the limits of Envoy's edge best practices.
Plain HTTP is redirected to https.
The admin interface is a Unix socket in a 0700 folder. Routes, clusters, endpoints and the
certificate come from files (`xds.py`).
"""

from __future__ import annotations

import os
import resource
import socket
from dataclasses import dataclass
from pathlib import Path

from lapwing.agent.proxy import ambiguous_paths, metrics, proxy_protocol
from lapwing.agent.proxy.xds import (
    BASIC_AUTH,
    PLAIN_HTTP,
    PROVIDED,
    RBAC,
    ROUTES,
    TO_HTTPS,
    address_range,
    certificate_file,
    extension,
    from_file,
)
from lapwing.plan.htpasswd import NO_USERS
from lapwing.render.envoy import (
    BAD_REQUEST,
    BODY_TIMEOUT_S,
    FORWARDING_HEADERS,
    STREAM_IDLE,
    Json,
    client_headers,
    downstream_tls,
    duration,
    heap_limit,
    http_connection_manager,
    http_filters,
    reply,
    router,
    socket_address,
)

MIB = 1024 * 1024
GIB = 1024 * MIB
MAX_CONNECTIONS = 50_000
RESERVED_FILES = 512
"""File descriptors for Envoy's files, listeners, admin interface and health checks."""
BUCKETS_MS = (
    0.5, 1, 2, 3, 5, 7.5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200, 250, 300, 400, 500, 750, 1000,
    1500, 2000, 3000, 5000, 10000, 30000, 60000,
)  # fmt: skip
"""Upper bounds of the latency histogram, fine enough for a 95th percentile."""
FORBIDDEN = "Requests from your IP address are not allowed here.\n"
PREVIEW_FORBIDDEN = (
    "A preview is only served to clients on its machine: from elsewhere, forward the port with "
    "`ssh -L`.\n"
)
RUNTIME = {"re2.max_program_size.error_level": 100_000}
"""The limit of regular expressions: Envoy's default, 100, is exceeded by those of two segments."""
UNDERSCORE_ACTIONS = {"reject": "REJECT_REQUEST", "drop": "DROP_HEADER", "allow": "ALLOW"}


@dataclass(frozen=True, slots=True)
class Ingress:
    """The listener: the IP addresses and the port that it binds to, and what it accepts.

    Requests from `trusted_proxies` (networks) keep their X-Forwarded headers.
    `underscore_headers` is `reject`, `drop` or `allow`. A request has to arrive within
    `body_timeout` seconds; 0 is no limit. Envoy's heap stays below `max_heap` bytes.
    """

    addresses: list[str]
    port: int
    trusted_proxies: tuple[str, ...] = ()
    underscore_headers: str = "reject"
    max_connections: int = MAX_CONNECTIONS
    body_timeout: float = BODY_TIMEOUT_S
    max_heap: int = 2 * GIB
    redirect_port: int | None = None
    """A second port, for plain HTTP: it redirects to https and answers ACME challenges."""
    provided: int = 0
    """The number of certificates of users."""
    metrics_port: int | None = None
    """A port on loopback for metrics of this process."""
    proxy_protocol: bool = False
    """Whether `trusted_proxies` state the client's address by the PROXY protocol."""


def bootstrap(folder: Path, admin: Path, ingress: Ingress) -> Json:
    """Render Envoy's bootstrap. `folder` holds the xDS files, `admin` is the socket."""
    limits = heap_limit(ingress.max_heap)
    connections = extension(
        "envoy.resource_monitors.global_downstream_max_connections",
        "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
        max_active_downstream_connections=ingress.max_connections,
    )
    listeners = [_listener(folder, ingress), *_plain_listeners(folder, ingress)]
    static: Json = {"listeners": listeners}
    if ingress.metrics_port is not None:
        listeners.append(metrics.listener(ingress.metrics_port))
        static["clusters"] = [metrics.cluster(admin)]
    return {
        "node": {"id": "lapwing", "cluster": "lapwing"},
        "admin": {"address": {"pipe": {"path": str(admin), "mode": 0o600}}},
        "dynamic_resources": {"cds_config": from_file(folder / "cds.json")},
        "static_resources": static,
        "layered_runtime": {"layers": [{"name": "static", "static_layer": RUNTIME}]},
        "stats_config": {
            "histogram_bucket_settings": [
                {"match": {"prefix": "cluster."}, "buckets": list(BUCKETS_MS)}
            ],
            "stats_matcher": {
                "inclusion_list": {
                    "patterns": [
                        {"prefix": p}
                        for p in ("cluster.", "cluster_manager.", "http.ingress.", "listener_manag")
                    ]
                }
            },
        },
        # Counters are flushed when the agent reads them, so no timer wakes an idle Envoy.
        "stats_flush_on_admin": True,
        "overload_manager": {
            **limits,
            "resource_monitors": [connections, *limits["resource_monitors"]],
        },
    }


def connection_limit() -> int:
    """Return how many clients may connect at once: each needs a second descriptor upstream.

    Envoy raises its soft limit of descriptors to the hard limit itself.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, (hard - RESERVED_FILES) // 2))


def heap_size() -> int:
    """Return how large Envoy's heaps may grow together: to half of the memory of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def addresses_for(bind: str) -> list[str]:
    """Return the addresses to bind to: for `localhost` both families, where IPv6 is available."""
    if bind != "localhost":
        return [bind]
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return ["127.0.0.1"]
    return ["127.0.0.1", "::1"]


def _listener(folder: Path, ingress: Ingress) -> Json:
    first, *more = [socket_address(a, ingress.port) for a in ingress.addresses]
    chains = _chains(folder, ingress)
    chains.append(_redirect())
    return {
        "name": "ingress",
        "address": first,
        "additional_addresses": [{"address": a} for a in more],
        "per_connection_buffer_limit_bytes": 64 * 1024,
        "listener_filters": [
            *_stated_address(ingress),
            extension(
                "envoy.filters.listener.tls_inspector",
                "extensions.filters.listener.tls_inspector.v3.TlsInspector",
            ),
        ],
        "filter_chains": chains,
    }


def _stated_address(ingress: Ingress) -> list[Json]:
    return [proxy_protocol.listener_filter()] if ingress.proxy_protocol else []


def _chains(folder: Path, ingress: Ingress) -> list[Json]:
    """Render the filter chains of TLS, by what Envoy accepts from each peer."""
    if ingress.proxy_protocol:
        matches = proxy_protocol.matches(ingress.trusted_proxies, ingress.addresses)
        return [{"name": name, **m, **_chain(folder, ingress, kept)} for name, kept, m in matches]
    chains = [_chain(folder, ingress, is_trusted=False)]
    if ingress.trusted_proxies:
        ranges = [address_range(network) for network in ingress.trusted_proxies]
        match = {"filter_chain_match": {"direct_source_prefix_ranges": ranges}}
        chains.insert(0, {"name": "trusted-proxies", **match, **_chain(folder, ingress, True)})
    return chains


def _plain_listeners(folder: Path, ingress: Ingress) -> list[Json]:
    """Render the listener for plain HTTP, if there is one; its routes also answer challenges."""
    if ingress.redirect_port is None:
        return []
    first, *more = [socket_address(a, ingress.redirect_port) for a in ingress.addresses]
    source = from_file(folder / "http.json")
    routes = {"rds": {"route_config_name": PLAIN_HTTP, "config_source": source}}
    return [
        {
            "name": "plain-http",
            "address": first,
            "additional_addresses": [{"address": a} for a in more],
            "per_connection_buffer_limit_bytes": 64 * 1024,
            # No reply depends on the client's address, so that any peer may state one.
            "listener_filters": _stated_address(ingress),
            "filter_chains": [{"filters": [http_connection_manager(_plain_http(routes))]}],
        }
    ]


def _chain(folder: Path, ingress: Ingress, is_trusted: bool) -> Json:
    # The first one with the name that a client asks for is used; without a name, the first one.
    names = [
        *PROVIDED[: ingress.provided],
        *(["public"] if ingress.redirect_port is not None else ()),
        "server",
    ]
    certificates = [
        {"name": name, "sds_config": from_file(folder / certificate_file(name))} for name in names
    ]
    return {
        "transport_socket": downstream_tls({"tls_certificate_sds_secret_configs": certificates}),
        "transport_socket_connect_timeout": "15s",
        "filters": [http_connection_manager(_http(folder, ingress, is_trusted))],
    }


def _redirect() -> Json:
    """Render the answer to plain HTTP on the TLS port: the same address with https.

    `raw_buffer` is a connection in which the TLS inspector found no TLS.
    """
    host = {"name": "redirect", "domains": ["*"], "routes": [TO_HTTPS]}
    routes = {"route_config": {"name": PLAIN_HTTP, "virtual_hosts": [host]}}
    return {
        "name": "plain-http",
        "filter_chain_match": {"transport_protocol": "raw_buffer"},
        "filters": [http_connection_manager(_plain_http(routes))],
    }


def _plain_http(routes: Json) -> Json:
    """Render the options of HTTP for connections without TLS."""
    return {
        "stat_prefix": "plain-http",
        **routes,
        "server_name": "lapwing",
        "stream_idle_timeout": "15s",
        "request_headers_timeout": "15s",
        "http_protocol_options": {"accept_http_10": True},
        "http_filters": [router(suppress_envoy_headers=True)],
    }


def _http(folder: Path, ingress: Ingress, is_trusted: bool) -> Json:
    """Render the options of HTTP, for clients or for trusted proxies."""
    return {
        "stat_prefix": "ingress",
        "codec_type": "AUTO",
        "rds": {"route_config_name": ROUTES, "config_source": from_file(folder / "rds.json")},
        "use_remote_address": True,
        "xff_num_trusted_hops": 1 if is_trusted else 0,
        "append_x_forwarded_port": True,
        "early_header_mutation_extensions": [
            client_headers(kept=FORWARDING_HEADERS if is_trusted else ())
        ],
        "normalize_path": True,
        "merge_slashes": False,
        "server_name": "lapwing",
        "stream_idle_timeout": STREAM_IDLE,
        "request_headers_timeout": "30s",
        "request_timeout": duration(ingress.body_timeout),
        "http_protocol_options": {"accept_http_10": True},
        "common_http_protocol_options": {
            "idle_timeout": STREAM_IDLE,
            "headers_with_underscores_action": UNDERSCORE_ACTIONS[ingress.underscore_headers],
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 64 * 1024,
            "initial_connection_window_size": MIB,
        },
        "local_reply_config": {
            "mappers": [
                reply(400, BAD_REQUEST + ambiguous_paths.TEXT),
                reply(403, PREVIEW_FORBIDDEN, host="preview."),
                reply(403, FORBIDDEN),
            ]
        },
        "access_log": [_access_log()],
        # The rules of RBAC are those of a virtual host or a route, the users those of a route.
        **http_filters(
            extension(RBAC, "extensions.filters.http.rbac.v3.RBAC"),
            {**_basic_auth(), "disabled": True},
            suppress_envoy_headers=True,
        ),
    }


def _basic_auth() -> Json:
    kind = "extensions.filters.http.basic_auth.v3.BasicAuth"
    return extension(BASIC_AUTH, kind, users={"inline_string": NO_USERS})


def _access_log() -> Json:
    """Log one JSON line per request, without query strings: they may contain secrets.

    The standard output is the pipe of a log writer.
    """
    line = {
        "time": "%START_TIME%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "host": "%REQ(:AUTHORITY)%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ)%",
        "protocol": "%PROTOCOL%",
        "status": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "ms": "%DURATION%",
        "received": "%BYTES_RECEIVED%",
        "sent": "%BYTES_SENT%",
        "cluster": "%UPSTREAM_CLUSTER_RAW%",
        "replica": "%UPSTREAM_HOST%",
        "request": "%REQ(X-REQUEST-ID)%",
    }
    return extension(
        "envoy.access_loggers.stdout",
        "extensions.access_loggers.stream.v3.StdoutAccessLog",
        log_format={"json_format": line},
    )
