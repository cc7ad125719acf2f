"""What the agent tells the proxy, in the proxy's words but without Envoy's JSON.

A `Cluster` is one generation of one service: its name is never used again for another set of
processes, so counters start at zero and "is this cluster known to Envoy" has one meaning. A
`RouteTable` is everything that Envoy routes; replacing it is one atomic act, however many services
change sides in it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cluster:
    """A generation's replicas. `ports` are on 127.0.0.1. `health_path` None checks by TCP.
    `health_interval` and `health_timeout` are seconds."""

    name: str
    ports: tuple[int, ...]
    health_path: str | None = None
    health_interval: float = 5.0
    health_timeout: float = 2.0


@dataclass(frozen=True, slots=True)
class Route:
    """A path prefix (whole segments: `/api` takes `/api` and `/api/x`, not `/apiary`) to a
    cluster; `cluster` None answers 503 with Retry-After. `timeout` in seconds; None for none."""

    prefix: str
    cluster: str | None
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class VirtualHost:
    """Routes for host names (no ports; the proxy adds them). `title` is told to people on a 404."""

    name: str
    domains: tuple[str, ...]
    routes: tuple[Route, ...]


@dataclass(frozen=True, slots=True)
class RouteTable:
    """All routes, with the version that Envoy reports back once it has taken them."""

    version: str
    hosts: tuple[VirtualHost, ...]


@dataclass(frozen=True, slots=True)
class Counters:
    """What Envoy has counted for one cluster since it was made.

    `errors` counts responses of 5xx and requests that got none. `latency` is the cumulative
    histogram of upstream request time: (upper bound in seconds, requests at or below it).
    """

    cluster: str
    requests: int = 0
    errors: int = 0
    active_requests: int = 0
    active_connections: int = 0
    latency: tuple[tuple[float, int], ...] = ()
