"""The Envoy configuration of a cluster's edge, as a tree in which names are typed leaves.

It is static, in a ConfigMap whose name ends in its digest: a change of routes is a rolling update
of the edge, and a rollback restores the old routes. A connection to a service is used for at most
`MAX_CONNECTION_DURATION`, so that a flip of the Service's selector reaches busy connections too
(see `edge.py`).

Envoy exits at SIGTERM with every stream that is open, so the kubelet first requests `/drain`, which
`scripts/drain.lua` answers when no stream is open. The readiness probe requests `/ready` from the
listener for clients, where it does not fail meanwhile: if no other pod is ready, nodes still send
connections to a terminating pod that is. So a pod that requests `/drain` where network policies are
not enforced only makes clients reconnect.

Sources: Envoy documentation, service discovery (strict DNS), HTTP connection manager, "Local reply
modification", Lua, Fault Injection, Draining; Kubernetes documentation, container lifecycle hooks,
"ProxyTerminatingEndpoints".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from lapwing.plan import make
from lapwing.render import envoy
from lapwing.render.envoy import Json
from lapwing.render.kubernetes import emit, pod
from lapwing.render.kubernetes.analysis import STATS_PORT
from lapwing.render.kubernetes.edge_size import EdgeSize
from lapwing.render.kubernetes.objects import ClusterEnvironment, name
from lapwing.render.kubernetes.setting import Extra, Joined, Setting, join
from lapwing.stack.model import Service
from lapwing.system.package_data import fill, read

PORT = 8080
"""Plain HTTP, behind a load balancer that terminates TLS."""
TLS_PORT = 8443
DRAIN_PORT = 9903
"""The port of an edge pod that the kubelet requests `/drain` from. No network policy allows it; the
node of a pod needs none."""
PRE_STOP_S = 20
"""How long a terminating edge pod serves at least, until load balancers have removed it."""
HEALTH_CHECKERS = ("GoogleHC/", "kube-probe/")
"""User agent prefixes whose `/ready` requests the edge answers; for others the path is the
stack's."""
MAX_CONNECTION_DURATION = "1s"
"""How long a connection to a service is used. Source: Envoy documentation, HttpProtocolOptions,
max_connection_duration; open streams are not closed."""
RETRY_LONGER: Json = {
    "num_retries": 16,
    "retry_back_off": {"base_interval": "0.1s", "max_interval": "0.5s"},
}
"""For requests of which the service has received nothing. Each back-off is random, from 0 to its
interval: together 3.6 s on average, and at least 2 s for 999 of 1,000 requests. A Service without
ready pods refuses connections: for one to three seconds if a kubelet was restarted (before
Kubernetes 1.35 it reports every pod of its node as not ready until it has probed it), and for long
in an upgrade with an outage.

Sources: Envoy documentation, Router, `x-envoy-max-retries`; Kubernetes, KEP-4781."""
RETRY_SAFE: Json = {
    "num_retries": 5,
    "retry_back_off": {"base_interval": "1s", "max_interval": "2.5s"},
}
"""For safe methods, which are also retried if their pod was killed before it responded. Envoy has
one number for both kinds of retries, and a request may be what kills a pod, so it is sent at most
six times. Fewer retries need longer back-offs: 5.3 s on average, and at least 2 s for 99 of 100
requests."""
CONNECT_TIMEOUT = "0.25s"
"""How long a connection to a service may take. A node refuses connections by ICMP messages, which
Linux limits to six at once and then one per second for each pod (`icmp_ratelimit`). Without such a
message, the kernel of the client sends its SYN again after 1 s."""
RETRY_AFTER_S = 15
"""When clients may retry a request to a service that has no pod: later than its last retry."""
STATS_FLUSH_INTERVAL = "1s"
"""How often Envoy aggregates latencies; counters are that stale at most."""
_ADMIN_CLUSTER = "envoy_admin"
_DRAIN_CLUSTER = "envoy_drain"
"""Service names have no underscore, so this name cannot conflict."""
_ADMIN_SOCKET = {"path": "/tmp/admin.sock"}  # noqa: S108 - in the pod


DRAIN = read("render.kubernetes", "scripts/drain.lua")


def ends_tls(environment: ClusterEnvironment) -> bool:
    """Report whether the edge terminates TLS itself: if nothing in front of it does."""
    return environment.settings.gateway is None and environment.settings.cloud is None


def configuration(environment: ClusterEnvironment, size: EdgeSize) -> Joined:
    """Write Envoy's configuration as YAML; host names have the prefix of the installation."""
    routed = {n: s for n, s in environment.services.items() if s.route}
    tree = {
        "admin": {"address": {"pipe": {**_ADMIN_SOCKET, "mode": 0o600}}},
        "stats_flush_interval": STATS_FLUSH_INTERVAL,
        "overload_manager": _limits(size),
        "static_resources": {
            "listeners": [_web(environment, routed), _counters(), _drain()],
            "clusters": [
                *(_cluster(n, s) for n, s in routed.items()),
                _internal(_ADMIN_CLUSTER, {"pipe": dict(_ADMIN_SOCKET)}),
                _internal(_DRAIN_CLUSTER, envoy.socket_address("127.0.0.1", DRAIN_PORT)),
            ],
        },
    }
    # Every leaf is a host name or a number, which needs no quotes.
    leaves = (p if isinstance(p, str) else p.leaf for p in emit.pieces(tree))
    return join(*(leaf for leaf in leaves if not isinstance(leaf, Extra)))


def _limits(size: EdgeSize) -> Json:
    """Limit the heap and the connections of clients by the memory of a pod.

    Kept connections need memory without any request, so 503 responses alone would not bound it.
    """
    heap = Setting(
        "edge.maxHeapBytes", size.max_heap, "The heap in bytes at which Envoy responds with 503."
    )
    connections = Setting(
        "edge.maxConnections", size.max_connections, "Connections of clients to each Envoy pod."
    )
    return envoy.heap_limit(heap, max_connections=connections)


def _web(environment: ClusterEnvironment, routed: Mapping[str, Service]) -> Json:
    longest = sorted(routed.items(), key=lambda item: (-len(item[1].route or ""), item[0]))
    options = {
        "stat_prefix": "edge",
        "use_remote_address": True,
        "xff_num_trusted_hops": _trusted_hops(environment),
        "stream_idle_timeout": envoy.STREAM_IDLE,
        "request_timeout": _body_timeout(routed),
        "normalize_path": True,
        "merge_slashes": False,
        "http_protocol_options": {"accept_http_10": True},
        # A load balancer sets these two; everything else under such names is from the client.
        "early_header_mutation_extensions": [
            envoy.client_headers(
                kept=() if ends_tls(environment) else ("x-forwarded-for", "x-forwarded-proto")
            )
        ],
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "common_http_protocol_options": {
            # Longer than the load balancer's 600 s, so that the edge never closes a connection that
            # the load balancer is about to use. Source: Google Cloud, "Timeouts and retries".
            "idle_timeout": "620s",
            "headers_with_underscores_action": "ALLOW",
        },
        "local_reply_config": {"mappers": [*_unavailable_replies()]},
        **envoy.http_filters(),
        "route_config": {
            "name": "stack",
            "virtual_hosts": [
                {
                    "name": "stack",
                    "domains": ["*"],
                    "retry_policy": {**envoy.RETRIES, **RETRY_LONGER},
                    "routes": [*_health_routes(), *_routes(environment, longest)],
                }
            ],
        },
    }
    chain: Json = {"filters": [envoy.http_connection_manager(options)]}
    if ends_tls(environment):
        certificate = {
            "certificate_chain": {"filename": "/etc/tls/tls.crt"},
            "private_key": {"filename": "/etc/tls/tls.key"},
        }
        chain["transport_socket"] = envoy.downstream_tls({"tls_certificates": [certificate]})
    return _listener("web", TLS_PORT if ends_tls(environment) else PORT, chain)


def _listener(called: str, port: int, chain: Json) -> Json:
    address = envoy.socket_address("0.0.0.0", port)  # noqa: S104 - in its pod
    return {"name": called, "address": address, "filter_chains": [chain]}


def _unavailable_replies() -> Iterator[Json]:
    """Answer 503 with a retry-after header if a service has no pod, as during an offline upgrade.

    Also if the timeout of the service ended before the retries: then Envoy's status is 504, and the
    request never had a connection. Only the edge's own replies are changed, not those of a service.

    Source: Envoy documentation, Attributes, `upstream.local_address`; CEL access log filter.
    """
    status = {"value": {"default_value": 503, "runtime_key": "edge_unavailable"}}
    unconnected = {
        "@type": f"{envoy.TYPE}.extensions.access_loggers.filters.cel.v3.ExpressionFilter",
        "expression": "response.code == 504 && !has(upstream.local_address)",
    }
    extension = {"name": "envoy.access_loggers.extension_filters.cel", "typed_config": unconnected}
    for matched in (
        {"status_code_filter": {"comparison": status}},
        {"extension_filter": extension},
    ):
        yield {
            "filter": matched,
            "status_code": 503,
            "headers_to_add": [
                {
                    "header": {"key": "retry-after", "value": str(RETRY_AFTER_S)},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                }
            ],
            "body": {"inline_string": "This service is not available at the moment.\n"},
        }


def _trusted_hops(environment: ClusterEnvironment) -> int:
    """Count the entries of X-Forwarded-For that proxies in front of the edge add.

    Google's load balancers add two, the client's address and their own. Source: Google Cloud,
    Application Load Balancers, "X-Forwarded-For header".
    """
    if ends_tls(environment):
        return 0
    return 2 if environment.settings.cloud is not None else 1


def _health_routes() -> Iterator[Json]:
    for agent in HEALTH_CHECKERS:
        header = {"name": "user-agent", "string_match": {"prefix": agent}}
        yield {
            "match": {"path": "/ready", "headers": [header]},
            "direct_response": {"status": 200, "body": {"inline_string": "ready\n"}},
        }


def _routes(environment: ClusterEnvironment, longest: Iterable[tuple[str, Service]]) -> list[Json]:
    routes = [_route(environment, part, service) for part, service in longest]
    return [each for route in routes for each in envoy.by_method(route, RETRY_SAFE)]


def _route(environment: ClusterEnvironment, part: str, service: Service) -> Json:
    layers = [make.headers(h) for h in (environment.settings.headers, service.headers)]
    timeout = envoy.request_timeout(service.timeout)
    return {
        "match": envoy.route_match((service.route or "/").rstrip("/") or "/"),
        "route": {"cluster": part, "timeout": timeout, "idle_timeout": envoy.STREAM_IDLE},
        **envoy.buffered(service.max_body),
        **envoy.response_headers(envoy.header_changes(envoy.SECURE, *layers)),
    }


def _body_timeout(routed: Mapping[str, Service]) -> str:
    """Return how long a request may take to arrive: any time if a service streams bodies."""
    streams = any(s.max_body is None for s in routed.values())
    return envoy.request_timeout(None if streams else envoy.BODY_TIMEOUT_S)


def _cluster(part: str, service: Service) -> Json:
    return {
        "name": part,
        "type": "STRICT_DNS",
        "connect_timeout": CONNECT_TIMEOUT,
        "dns_lookup_family": "ALL",
        "load_assignment": _endpoint(part, envoy.socket_address(name(part), pod.port(service))),
        "circuit_breakers": envoy.LIMITS,
        "typed_extension_protocol_options": envoy.upstream_http(
            idle_timeout=MAX_CONNECTION_DURATION, max_connection_duration=MAX_CONNECTION_DURATION
        ),
    }


def _endpoint(cluster: str, address: Json) -> Json:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    return {"cluster_name": cluster, "endpoints": endpoints}


def _counters() -> Json:
    """Serve counters, read-only; no other path of the admin interface is exposed."""
    get = {"name": ":method", "string_match": {"exact": "GET"}}
    match = {"path": "/stats/prometheus", "headers": [get]}
    route = {"match": match, "route": {"cluster": _ADMIN_CLUSTER}}
    options = {"http_filters": [envoy.router()]}
    return _internal_listener("counters", STATS_PORT, route, options)


def _drain() -> Json:
    """Answer `/drain` when the last stream has ended, and `/wait` after a second."""
    types = f"{envoy.TYPE}.extensions.filters.http"
    lua = {
        "@type": f"{types}.lua.v3.Lua",
        "default_source_code": {"inline_string": fill(DRAIN, wait=PRE_STOP_S)},
    }
    fault = {
        "@type": f"{types}.fault.v3.HTTPFault",
        "delay": {"fixed_delay": "1s", "percentage": {"numerator": 100}},
    }
    filters = [
        {"name": "envoy.filters.http.lua", "typed_config": lua},
        {"name": "envoy.filters.http.fault", "typed_config": fault},
        envoy.router(),
    ]
    route = {"match": {"path": "/wait"}, "direct_response": {"status": 204}}
    options = {"http_filters": filters, "stream_idle_timeout": "0s"}
    return _internal_listener("drain", DRAIN_PORT, route, options)


def _internal_listener(called: str, port: int, route: Json, options: Json) -> Json:
    host = {"name": called, "domains": ["*"], "routes": [route]}
    routes = {"name": called, "virtual_hosts": [host]}
    options = {"stat_prefix": called, "route_config": routes, **options}
    chain = {"filters": [envoy.http_connection_manager(options)]}
    return {**_listener(called, port, chain), "ignore_global_conn_limit": True}


def _internal(called: str, address: Json) -> Json:
    return {
        "name": called,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": _endpoint(called, address),
    }
