"""Publisher: brings what the slots say to Envoy, always in the order that loses no request.

First every cluster, then the wait until Envoy knows the ones that will be routed to, then the
whole route table by one rename, then Envoy's own word that it has taken it. A generation is taken
out of the clusters only after a route table without it was confirmed, because it leaves the
state's generations only then.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from lapwing.agent import bluegreen
from lapwing.agent.proxy.model import Cluster, Counters, RouteTable, VirtualHost
from lapwing.agent.state import EnvironmentState
from lapwing.errors import ProxyAwayError

CONFIRMATION = 10.0
"""Seconds that Envoy may take to confirm; it usually takes a few milliseconds."""
AWAY = 20.0
"""Seconds that Envoy may be away: one that was killed is back in less than one."""
HEALTHY = 10.0
"""Seconds that Envoy may take to find a replica healthy that the agent has found so; it asks one
that was dead every second."""
PAUSE = 0.1
"""Seconds between two tries while it is away."""


class Proxy(Protocol):
    """What the agent needs of the proxy."""

    async def publish_clusters(self, clusters: Sequence[Cluster]) -> None:
        """Tell the proxy all clusters there are."""

    async def wait_for_clusters(self, names: Iterable[str], timeout: float) -> None:
        """Wait until the proxy knows these clusters. Raises ProxyError."""

    async def publish_routes(self, table: RouteTable) -> None:
        """Replace all routes by one rename."""

    async def confirmed(self, version: str, timeout: float) -> None:
        """Wait until the proxy routes by this version. Raises ProxyError."""

    async def counters(self, names: Iterable[str]) -> Mapping[str, Counters]:
        """What the proxy has counted for these clusters."""

    async def health(self) -> Mapping[str, Mapping[int, bool]]:
        """Cluster to port to whether the proxy sends requests there."""


class Publisher:
    """Publishes the states that `states` gives, one at a time."""

    def __init__(self, proxy: Proxy, states: Callable[[], list[EnvironmentState]]) -> None:
        self.proxy = proxy
        self._states = states
        self._lock = asyncio.Lock()
        self._counter = itertools.count(1)
        self._clusters: tuple[Cluster, ...] | None = None
        self._hosts: tuple[VirtualHost, ...] | None = None

    async def publish(self) -> None:
        """Bring Envoy to the present state; returns when it has confirmed. Nothing is written
        where nothing changed. An Envoy that dies meanwhile is waited for: it is told again when it
        is back. Raises ProxyError, and then may be called again."""
        async with self._lock:
            until = time.monotonic() + AWAY
            while True:
                try:
                    await self._publish()
                    return
                except ProxyAwayError:
                    if time.monotonic() > until:
                        raise
                await asyncio.sleep(PAUSE)

    async def counters(self, names: Iterable[str]) -> Mapping[str, Counters]:
        """What the proxy has counted; nothing while it is away."""
        try:
            return await self.proxy.counters(names)
        except ProxyAwayError:
            return {}

    async def wait_until_healthy(self, replicas: Mapping[str, Iterable[int]]) -> set[str]:
        """Wait until the proxy, too, finds the ports of these clusters healthy: of a replica that
        died and is back it may still think that it is dead. Returns the clusters of which it
        thinks so after all."""
        until = time.monotonic() + HEALTHY
        while True:
            try:
                health = await self.proxy.health()
                ill = {
                    name
                    for name, ports in replicas.items()
                    if not all(health.get(name, {}).get(port, True) for port in ports)
                }
            except ProxyAwayError:
                ill = set(replicas)
            if not ill or time.monotonic() > until:
                return ill
            await asyncio.sleep(PAUSE)

    async def _publish(self) -> None:
        states = self._states()
        clusters = tuple(c for s in states for c in bluegreen.clusters(s))
        hosts = bluegreen.virtual_hosts(states)
        if clusters != self._clusters:
            self._clusters = None
            await self.proxy.publish_clusters(clusters)
            self._clusters = clusters
        if hosts != self._hosts:
            self._hosts = None
            routed = {r.cluster for h in hosts for r in h.routes if r.cluster is not None}
            await self.proxy.wait_for_clusters(sorted(routed), CONFIRMATION)
            version = f"{time.time_ns()}-{next(self._counter)}"
            await self.proxy.publish_routes(RouteTable(version, hosts))
            await self.proxy.confirmed(version, CONFIRMATION)
            self._hosts = hosts
