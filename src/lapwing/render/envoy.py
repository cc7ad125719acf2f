"""Envoy configuration that a machine and the edge of a cluster have in common.

Source for every field: Envoy's v3 API reference, release 1.40.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]
TYPE = "type.googleapis.com/envoy"
STREAM_IDLE = "3600s"
"""How long a stream may be silent. Envoy's default of 5 minutes would close quiet websockets."""
RETRIES: Json = {
    "retry_on": "connect-failure,refused-stream,reset-before-request",
    "num_retries": 4,
}
"""A request is retried only if no upstream can have started to process it."""
SAFE_RETRIES: Json = {**RETRIES, "retry_on": f"{RETRIES['retry_on']},reset"}
"""For methods that change nothing (RFC 9110, 9.2.1). Such a request is also retried if its upstream
was killed before it responded."""
LIMITS: Json = {
    "thresholds": [
        {
            "max_connections": 16384,
            "max_pending_requests": 16384,
            "max_requests": 16384,
            "max_retries": 16384,
        }
    ]
}
"""Circuit breakers. The defaults (1,024, and 3 retries) would answer 503 under a load that replicas
can serve. A request that waits for its next retry counts as one of `max_retries`."""

BUFFER = "envoy.filters.http.buffer"
BODY_TIMEOUT_S = 600
"""How long a request may take to arrive: a slow client is cut off with 408."""

FORWARDING_HEADERS = (
    "forwarded",
    "x-real-ip",
    *(
        f"x-forwarded-{name}"
        for name in ("for", "host", "port", "prefix", "proto", "protocol", "scheme", "ssl")
    ),
)
"""Headers by which applications learn of the client and of the URL that it requested."""
BAD_REQUEST = (
    "Bad request (%RESPONSE_CODE_DETAILS%).\n"
    "Names of request headers may not contain an underscore: servers take `x_forwarded_for` for "
    "`x-forwarded-for`.\n"
)


SECURE = {"x-content-type-options": "nosniff"}
"""Response headers that are added where an application has not set them."""


@dataclass(frozen=True, slots=True)
class HeaderChange:
    """A change of a response header. `default` adds it only where it is missing."""

    name: str
    action: Literal["default", "set", "add", "remove"]
    value: str = ""


def header_changes(
    defaults: Mapping[str, str], *layers: Mapping[str, str | Sequence[str] | bool]
) -> tuple[HeaderChange, ...]:
    """Merge changes of response headers by lower-case names; a later layer overrides."""
    changes = []
    merged = {name: value for layer in layers for name, value in layer.items()}
    for name, value in sorted({**defaults, **merged}.items()):
        if name not in merged:
            changes.append(HeaderChange(name, "default", defaults[name]))
        elif isinstance(value, str):
            changes.append(HeaderChange(name, "set", value))
        elif isinstance(value, bool):
            changes.append(HeaderChange(name, "remove"))
        else:
            changes += [HeaderChange(name, "add", each) for each in value]
    return tuple(changes)


def response_headers(changes: Iterable[HeaderChange]) -> Json:
    """Build the part of a route that changes response headers: first it removes, then it adds.

    Source: Envoy's v3 API reference, HeaderValueOption.HeaderAppendAction.
    """
    actions = {
        "default": "ADD_IF_ABSENT",
        "set": "OVERWRITE_IF_EXISTS_OR_ADD",
        "add": "APPEND_IF_EXISTS_OR_ADD",
    }
    changes = list(changes)
    added = [
        {
            # A percent sign starts a command operator of Envoy.
            "header": {"key": c.name, "value": c.value.replace("%", "%%")},
            "append_action": actions[c.action],
        }
        for c in changes
        if c.action != "remove"
    ]
    removed = [c.name for c in changes if c.action == "remove"]
    return {
        **({"response_headers_to_add": added} if added else {}),
        **({"response_headers_to_remove": removed} if removed else {}),
    }


def route_match(prefix: str) -> Json:
    """Match a path and everything below it; `/api` does not match `/apiary`."""
    return {"prefix": "/"} if prefix == "/" else {"path_separated_prefix": prefix}


def direct_response(status: int, text: str) -> Json:
    """Build the part of a route that responds with a text."""
    return {"direct_response": {"status": status, "body": {"inline_string": text}}}


def by_method(route: Json, options: Json | None = None) -> list[Json]:
    """Render a route to a cluster, and first its variant with the retries of safe methods.

    `options` are added to the retry policy of the variant.
    """
    methods = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS"}}}
    match = {**route["match"], "headers": [*route["match"].get("headers", ()), methods]}
    action = {**route["route"], "retry_policy": {**SAFE_RETRIES, **(options or {})}}
    return [{**route, "match": match, "route": action}, route]


def duration(seconds: float) -> str:
    """Format seconds for Envoy: decimal, never with an exponent, to the nanosecond.

    Source: protobuf, JSON mapping of google.protobuf.Duration.
    """
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def request_timeout(timeout: float | None) -> str:
    """Format the maximum duration of a request; None means no limit."""
    return "0s" if timeout is None else duration(timeout)


def http_filters(*first: Json, **options: Any) -> Json:
    """Build the filters of a connection manager: `first`, the buffer and the router.

    A body is buffered on routes with `buffered` only, and never for an upgrade: a websocket has no
    end to wait for. `options` are those of the router.

    Source: Envoy documentation, HTTP upgrades (the buffer filter is to be left out for them).
    """
    last = router(**options)
    kind = f"{TYPE}.extensions.filters.http.buffer.v3.Buffer"
    buffer = {
        "name": BUFFER,
        "disabled": True,
        "typed_config": {"@type": kind, "max_request_bytes": 1},
    }
    upgrade = {"upgrade_type": "websocket", "filters": [*first, last]}
    return {"upgrade_configs": [upgrade], "http_filters": [*first, buffer, last]}


def buffered(max_body: int | None) -> Json:
    """Build the part of a route that forwards a request only once its body has arrived.

    A body over `max_body` bytes is answered with 413. None: bodies are streamed.
    """
    if max_body is None:
        return {}
    kind = f"{TYPE}.extensions.filters.http.buffer.v3.BufferPerRoute"
    settings = {"@type": kind, "buffer": {"max_request_bytes": max_body}}
    return {"typed_per_filter_config": {BUFFER: settings}}


def heap_limit(max_bytes: Any, *, max_connections: Any = None) -> Json:
    """Build the overload manager's parts that answer 503 to new requests at a size of the heap.

    Bodies are buffered in memory, and Envoy can end only HTTP/2 streams that use too much of it.
    With `max_connections`, further connections of clients are closed.
    """
    name = "envoy.resource_monitors.fixed_heap"
    trigger = {"name": name, "threshold": {"value": 0.95}}
    action = {"name": "envoy.overload_actions.stop_accepting_requests", "triggers": [trigger]}
    monitors = [_monitor(name, "fixed_heap.v3.FixedHeapConfig", max_heap_size_bytes=max_bytes)]
    if max_connections is not None:
        monitors.append(
            _monitor(
                "envoy.resource_monitors.global_downstream_max_connections",
                "downstream_connections.v3.DownstreamConnectionsConfig",
                max_active_downstream_connections=max_connections,
            )
        )
    return {"resource_monitors": monitors, "actions": [action]}


def _monitor(name: str, kind: str, **config: Any) -> Json:
    typed = {"@type": f"{TYPE}.extensions.resource_monitors.{kind}", **config}
    return {"name": name, "typed_config": typed}


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


def client_headers(*, kept: tuple[str, ...] = ()) -> Json:
    """Build the extension that handles forwarding headers of the client before Envoy sets its own.

    Those that are not `kept` are removed; X-Forwarded-Host is then the Host of the request.

    Source: Envoy documentation, HTTP header manipulation, x-forwarded-for (appended to what the
    client sent, even with `use_remote_address`).
    """
    header = {"key": "x-forwarded-host", "value": "%REQ(:AUTHORITY)%"}
    host = {"append": {"header": header, "append_action": "ADD_IF_ABSENT"}}
    removed = [{"remove": name} for name in FORWARDING_HEADERS if name not in kept]
    kind = "extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {"@type": f"{TYPE}.{kind}", "mutations": [*removed, host]},
    }


def reply(status_code: int, text: str, *, host: str = "") -> Json:
    """Build a mapper that sets the text of Envoy's local replies with a status.

    With `host`, it is only for requests whose host name begins so.
    """
    value = {"default_value": status_code, "runtime_key": f"reply_{status_code}"}
    status = {"value": value, "op": "EQ"}
    matched: Json = {"status_code_filter": {"comparison": status}}
    if host:
        header = {"name": ":authority", "string_match": {"prefix": host}}
        matched = {"and_filter": {"filters": [matched, {"header_filter": {"header": header}}]}}
    return {
        "filter": matched,
        "body_format_override": {"text_format_source": {"inline_string": text}},
    }
