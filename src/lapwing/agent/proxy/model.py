"""Clusters, routes and counters of the proxy, independent of Envoy's JSON.

A `Cluster` is one generation of one service. Its name is never reused, so counters start at zero.
A `RouteTable` holds all routes; it is replaced atomically, however many services a switch changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lapwing.render.envoy import HeaderChange


def authority(host: str, port: int) -> str:
    """Return a host with its port, as in a URL of https: without the default port."""
    return host if port == 443 else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A generation's replicas.

    `ports` are on 127.0.0.1; those in `draining` get no new requests. Without `health_path`, the
    health check is a TCP connection. `health_interval` and `health_timeout` are seconds.
    """

    name: str
    ports: tuple[int, ...]
    health_path: str | None = None
    health_interval: float = 5.0
    health_timeout: float = 2.0
    health_host: str = "localhost"
    draining: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """A page (HTML) with status 503, and the seconds until clients may try again."""

    html: str
    retry_after: float


@dataclass(frozen=True, slots=True)
class Route:
    """A route from a path prefix to a cluster.

    A prefix matches whole segments: `/api` matches `/api` and `/api/x`, not `/apiary`. Without
    `cluster`, the response is 503 with Retry-After. `timeout` is in seconds; None is no timeout.
    Request bodies up to `max_body` bytes are buffered; None streams them. `headers` change those
    of responses. `page` is the response of a route without `cluster`. `clients` are the networks
    whose requests are accepted; empty: those of the virtual host. `users` are htpasswd
    lines for basic authentication; None: no login.
    """

    prefix: str
    cluster: str | None
    timeout: float | None = None
    max_body: int | None = None
    headers: tuple[HeaderChange, ...] = ()
    page: Page | None = None
    clients: tuple[str, ...] = ()
    users: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """Routes for host names (without ports).

    `clients` are the networks whose requests are accepted; empty: all. Replicas receive `authority`
    (a host name with a port), if it is set, in place of the first domain: as Host, X-Forwarded-Host
    and Origin. Requests are redirected to `redirect`, such a name, if it is set. `headers` change
    those of redirects. `is_preview`: there are routes only while a deployment is in progress or
    paused.
    """

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]
    clients: tuple[str, ...] = ()
    authority: str | None = None
    redirect: str | None = None
    headers: tuple[HeaderChange, ...] = ()
    is_preview: bool = False


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All routes, with the version that Envoy reports once it uses them."""

    version: str
    hosts: tuple[VirtualHost, ...]


@dataclass(frozen=True, slots=True)
class Counters:
    """Envoy's counters of one cluster since its creation.

    `errors` counts 5xx responses, requests without a response and responses that were cut off.
    `latency` is the cumulative histogram of upstream request time: (upper bound in seconds,
    requests at or below it).
    """

    cluster: str
    requests: int = 0
    errors: int = 0
    active_requests: int = 0
    active_connections: int = 0
    latency: tuple[tuple[float, int], ...] = ()
