"""Renders the part of Envoy's configuration that changes while it runs.

The kinds of file, each replaced by a rename (Envoy watches for renames, not for edits):

    cds.json          every cluster
    eds/<name>.json   the endpoints of one cluster, so a replica that moves to another port is a
                      change of endpoints and not a new cluster with new connections
    rds.json          every route: one rename switches all services
    sds.json          the certificate of the local authority
    sds-public.json   the certificate of a public authority, on a server
    sds-provided-<n>.json  a certificate that a user provides
    http.json         the routes of the port for plain HTTP, on a server

Source for every field: Envoy's v3 API reference, release 1.40.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lapwing.agent.proxy import not_found
from lapwing.agent.proxy.ambiguous_paths import with_rejections
from lapwing.agent.proxy.model import Cluster, Route, RouteTable, VirtualHost
from lapwing.plan.model import MAX_PAGE_BYTES
from lapwing.render.envoy import (
    LIMITS,
    RETRIES,
    STREAM_IDLE,
    TYPE,
    HeaderChange,
    Json,
    buffered,
    by_method,
    direct_response,
    duration,
    request_timeout,
    response_headers,
    route_match,
    socket_address,
    upstream_http,
)

ROUTES = "lapwing"
"""The name of the route configuration."""
PLAIN_HTTP = "plain-http"
"""The name of the route configuration of the port for plain HTTP."""
TO_HTTPS: Json = {
    "match": {"prefix": "/"},
    "redirect": {"https_redirect": True, "response_code": "TEMPORARY_REDIRECT"},
}
"""The route that redirects to https. It is temporary, because a browser would keep a permanent one
for whatever uses the port later."""
CHALLENGE_PATH = "/.well-known/acme-challenge/"
"""The path of HTTP-01 challenges. Source: RFC 8555, section 8.3."""
PROVIDED = tuple(f"provided-{number}" for number in range(8))
"""The names of the certificates of environments with `tls: {certificate: FILE, key: NAME}`. Each
takes an inotify instance of each process, so only those that are needed are in the bootstrap."""
HTML = "text/html; charset=utf-8"
RBAC = "envoy.filters.http.rbac"
BASIC_AUTH = "envoy.filters.http.basic_auth"
MAX_CONNECTION_DURATION = "1s"
"""How old a connection to a replica is at most when it is used again: younger than the keep-alive
of any common server (gunicorn 2 s, Node and uvicorn 5 s), so no request is sent on one that the
server is closing."""
UPSTREAM_IDLE = "10s"
"""How long a health check may take: Envoy counts its connection as idle. It starts to listen after
the first check of each replica, so one that hangs delays that by no more."""


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
    """Render the response of the endpoint discovery service for one cluster.

    Draining endpoints also have a lower priority. With the same priority, they would get requests
    if more than half of the endpoints are unhealthy. Source: Envoy's documentation, "Panic
    threshold".
    """
    localities: list[Json] = []
    for port in (*cluster.ports, *cluster.draining):
        endpoint: Json = {"endpoint": {"address": socket_address("127.0.0.1", port)}}
        if port in cluster.draining:
            draining = {**endpoint, "health_status": "DRAINING"}
            localities.append({"priority": 1, "lb_endpoints": [draining]})
        else:
            localities.append({"lb_endpoints": [endpoint]})
    return _response(
        version,
        "config.endpoint.v3.ClusterLoadAssignment",
        cluster_name=cluster.name,
        endpoints=localities,
    )


def routes(table: RouteTable) -> Json:
    """Render the response of the route discovery service: the whole route table."""
    return _response(
        table.version,
        "config.route.v3.RouteConfiguration",
        name=ROUTES,
        ignore_port_in_host_matching=True,
        max_direct_response_body_size_bytes=MAX_PAGE_BYTES,
        virtual_hosts=[*(_virtual_host(h) for h in table.hosts), not_found.other_hosts()],
    )


def plain_http(replies: Mapping[str, str], http_port: int, port: int, version: str) -> Json:
    """Render the routes of the port for plain HTTP: ACME challenges, else a redirect to https.

    `replies` are the replies to HTTP-01 challenges by token. Requests to `http_port` are redirected
    to `port`. Any other port in the authority is kept: a proxy or a port forwarding has it. If
    `http_port` is 80, all requests are redirected to `port`.
    """
    challenges = [
        {"match": {"path": CHALLENGE_PATH + token}, **direct_response(200, reply)}
        for token, reply in replies.items()
    ]
    to_port: Json = {**TO_HTTPS, "redirect": {**TO_HTTPS["redirect"], "port_redirect": port}}
    if http_port == 80:
        redirects = [TO_HTTPS if port == 443 else to_port]
    else:
        match = {**to_port["match"], "headers": [_has_port(http_port)]}
        redirects = [{**to_port, "match": match}, TO_HTTPS]
    host = {"name": PLAIN_HTTP, "domains": ["*"], "routes": [*challenges, *redirects]}
    return _response(
        version, "config.route.v3.RouteConfiguration", name=PLAIN_HTTP, virtual_hosts=[host]
    )


def certificate(file: Path, version: str, name: str = "server") -> Json:
    """Render the response of the secret discovery service for one certificate.

    `file` has key and chain; it is referenced, not included, so the key is in one place only.
    """
    source = {"filename": str(file)}
    return _response(
        version,
        "extensions.transport_sockets.tls.v3.Secret",
        name=name,
        tls_certificate={"certificate_chain": source, "private_key": source},
    )


def certificate_file(name: str) -> str:
    """Return the file name for a certificate, relative to the xDS folder."""
    return "sds.json" if name == "server" else f"sds-{name}.json"


def _response(version: str, kind: str, **resource: Any) -> Json:
    """Render a discovery response with one resource."""
    return {"version_info": version, "resources": [message(kind, **resource)]}


def message(kind: str, **fields: Any) -> Json:
    """Render a message with its type."""
    return {"@type": f"{TYPE}.{kind}", **fields}


def extension(name: str, kind: str, **fields: Any) -> Json:
    """Render an extension (a filter, a monitor, a logger) with its configuration."""
    return {"name": name, "typed_config": message(kind, **fields)}


def address_range(network: str) -> Json:
    """Render a network, such as `10.0.0.0/8`."""
    parsed = ipaddress.ip_network(network)
    return {"address_prefix": str(parsed.network_address), "prefix_len": parsed.prefixlen}


def from_file(path: Path) -> Json:
    """Render a subscription to a file."""
    return {"resource_api_version": "V3", "path_config_source": {"path": str(path)}}


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
        "typed_extension_protocol_options": upstream_http(
            idle_timeout=UPSTREAM_IDLE, max_connection_duration=MAX_CONNECTION_DURATION
        ),
    }


def _health_check(cluster: Cluster) -> Json:
    interval = duration(cluster.health_interval)
    check: Json = {
        "timeout": duration(cluster.health_timeout),
        "interval": interval,
        # Without traffic, `no_traffic_interval` replaces `unhealthy_interval`: after a reboot Envoy
        # may check a replica first while it starts. Source: Envoy's core.v3.HealthCheck.
        "no_traffic_interval": "1s",
        "no_traffic_healthy_interval": interval,
        "unhealthy_interval": "1s",
        "healthy_threshold": 1,
        "unhealthy_threshold": 3,
        "reuse_connection": False,
    }
    if cluster.health_path is None:
        return check | {"tcp_health_check": {}}
    accepted = [{"start": 200, "end": 400}]
    http = {"host": cluster.health_host, "path": cluster.health_path, "expected_statuses": accepted}
    return check | {"http_health_check": http}


_OTHER_HOSTS: Json = {
    "retry_host_predicate": [
        extension(
            "envoy.retry_host_predicates.previous_hosts",
            "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        )
    ],
    "host_selection_retry_max_attempts": 3,
    "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.5s"},
}
"""A retry goes to another replica, if there is one."""


def _virtual_host(host: VirtualHost) -> Json:
    if host.redirect is not None:
        routes = [{**r, **response_headers(host.headers)} for r in _to(host.redirect)]
        return {"name": host.name, "domains": list(host.domains), "routes": routes}
    return {
        "name": host.name,
        "domains": list(host.domains),
        **_allowed_clients(host.clients),
        "retry_policy": {**RETRIES, **_OTHER_HOSTS},
        "routes": [
            *with_rejections([(r, _routes(r, host)) for r in host.routes]),
            *not_found.other_paths(host),
        ],
    }


def _to(authority: str) -> list[Json]:
    """Render a permanent redirect to another host, which keeps the method, path and query.

    The port is kept, too: behind a proxy, requests have another one than Envoy, or none.
    """
    host, _, port = authority.partition(":")
    action = {
        "host_redirect": host,
        "https_redirect": True,
        "response_code": "PERMANENT_REDIRECT",
    }
    match: Json = {"prefix": "/"}
    route = {"match": match, "redirect": action}
    if not port:
        return [route]
    to_port = {**action, "port_redirect": int(port)}
    return [{"match": {**match, "headers": [_has_port(int(port))]}, "redirect": to_port}, route]


def _has_port(port: int) -> Json:
    return {"name": ":authority", "string_match": {"suffix": f":{port}"}}


def _routes(route: Route, host: VirtualHost) -> list[Json]:
    """Render a route, and first its variant for the Origin of a host with another authority.

    Applications compare the Origin of a form with Host. Another site's Origin is left unchanged.
    """
    rendered = _route(route)
    if "route" not in rendered:
        return [rendered]
    if host.authority is None:
        return by_method(rendered, _OTHER_HOSTS)
    rendered["route"]["host_rewrite_literal"] = host.authority
    rendered["request_headers_to_add"] = [_set_header("x-forwarded-host", host.authority)]
    _, colon, port = host.authority.partition(":")
    origin = {"exact": f"https://{host.domains[0]}{colon}{port}"}
    match = {**rendered["match"], "headers": [{"name": "origin", "string_match": origin}]}
    headers = [
        *rendered["request_headers_to_add"],
        _set_header("origin", f"https://{host.authority}"),
    ]
    same_origin = {**rendered, "match": match, "request_headers_to_add": headers}
    return [each for r in (same_origin, rendered) for each in by_method(r, _OTHER_HOSTS)]


def _set_header(name: str, value: str) -> Json:
    header = {"key": name, "value": value}
    return {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}


def _allowed_clients(networks: tuple[str, ...]) -> Json:
    """Answer 403 to requests from other networks."""
    if not networks:
        return {}
    principals = [{"remote_ip": address_range(network)} for network in networks]
    policy = {"permissions": [{"any": True}], "principals": principals}
    rules = {"action": "ALLOW", "policies": {"clients": policy}}
    kind = "extensions.filters.http.rbac.v3.RBACPerRoute"
    return {"typed_per_filter_config": {RBAC: message(kind, rbac={"rules": rules})}}


def _login(users: str | None) -> Json:
    """Answer 401 to requests without the password of a user.

    The Authorization header is removed: an application would take it for a login of its users.
    """
    if users is None:
        return {}
    kind = "extensions.filters.http.basic_auth.v3.BasicAuthPerRoute"
    settings = message(kind, users={"inline_string": users})
    return {
        "typed_per_filter_config": {BASIC_AUTH: settings},
        "request_headers_to_remove": ["authorization"],
    }


def _route(route: Route) -> Json:
    match = {"match": route_match(route.prefix)}
    if route.cluster is None:
        return {**match, **_unavailable(route)}
    action = {
        "cluster": route.cluster,
        "timeout": request_timeout(route.timeout),
        "idle_timeout": STREAM_IDLE,
    }
    filters = [buffered(route.max_body), _allowed_clients(route.clients), _login(route.users)]
    options = {key: value for part in filters for key, value in part.items()}
    settings = {n: s for f in filters for n, s in f.get("typed_per_filter_config", {}).items()}
    if settings:
        options["typed_per_filter_config"] = settings
    return {**match, "route": action, **options, **response_headers(route.headers)}


def _unavailable(route: Route) -> Json:
    """Render a response with status 503: the page of a route, or a text for a stopped service."""
    if route.page is None:
        response = direct_response(503, "This service is not running at the moment.\n")
        return {**response, **response_headers([HeaderChange("retry-after", "set", "5")])}
    seconds = str(max(1, round(route.page.retry_after)))
    headers = {"retry-after": seconds, "content-type": HTML, "cache-control": "no-store"}
    changes = [HeaderChange(name, "set", value) for name, value in headers.items()]
    response = direct_response(503, route.page.html)
    return {**response, **response_headers([*route.headers, *changes])}
