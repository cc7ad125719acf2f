"""Measures the load of autoscaled services, and adjusts their number of replicas.

Requests in progress are a momentary value, so the mean of some readings counts. CPU is the
difference between two readings of the processes of each replica. The decision is in `scaling.py`;
the `Scaler` of the environment adds and removes replicas. A service in a rollout is scaled only
while that is paused, and its history begins again after it, as after a restart of the agent:
nothing is removed for a whole `Scale.down_after`. After an error, the measurement is missing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from lapwing.agent import scaling
from lapwing.agent.footprint import footprints
from lapwing.agent.processes import Identity
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.agent.scaler import Scaler
from lapwing.agent.scaling import Load, Recommendation
from lapwing.agent.state import Generation
from lapwing.errors import LapwingError
from lapwing.plan.model import Scale

log = logging.getLogger(__name__)

READING_INTERVAL_S = 2.5
READINGS = 6
"""Readings of the requests in progress for one decision: one every 15 s, as in Kubernetes."""


class Autoscaler:
    """Scales the services of the environments whose scalers `scalers` returns."""

    def __init__(self, envoy: Envoy, scalers: Callable[[], list[Scaler]]) -> None:
        self._envoy = envoy
        self._scalers = scalers
        self._requests: dict[str, list[int]] = {}
        """Readings of the requests in progress, by the name of the cluster."""
        self._cpu: dict[Identity, float] = {}
        """CPU seconds that each replica had used at `_cpu_read` (monotonic seconds)."""
        self._cpu_read = 0.0
        self._history: dict[str, list[Recommendation]] = {}

    async def run(self) -> None:
        """Measure and scale until cancelled."""
        while True:
            try:
                for _ in range(READINGS):
                    await asyncio.sleep(READING_INTERVAL_S)
                    await self._read_requests()
                await self._decide()
            except (LapwingError, OSError) as error:
                log.info("The load was not measured: %s", error)
            except Exception:
                log.exception("The load was not measured; retrying.")
            self._requests.clear()

    def _scaled(self) -> list[tuple[Scaler, Generation, Scale]]:
        return [
            (scaler, g, g.spec.scale)
            for scaler in self._scalers()
            for g in scaler.scaled()
            if g.spec.scale
        ]

    async def _read_requests(self) -> None:
        """Read the requests in progress of services that are scaled by them. Raises ProxyError."""
        counted = [
            (scaler.cluster_name(g), g)
            for scaler, g, scale in self._scaled()
            if scale.requests is not None
        ]
        active = await self._envoy.admin.active_requests() if counted else {}
        for name, generation in counted:
            if (ports := active.get(name)) is not None:
                total = sum(ports.get(r.port, 0) for r in generation.replicas)
                self._requests.setdefault(name, []).append(total)

    async def _read_cpu(self, generations: list[Generation]) -> dict[Identity, float]:
        """Return the cores that each replica has used since the last call."""
        running = {
            Identity(r.pid, r.started)
            for g in generations
            for r in g.replicas
            if r.pid is not None and r.ready
        }
        read = await asyncio.to_thread(footprints, {i.pid for i in running}, memory=False)
        before, now = self._cpu, time.monotonic()
        seconds, self._cpu_read = now - self._cpu_read, now
        self._cpu = {i: read[i.pid].cpu for i in running if i.pid in read}
        return {i: max(0.0, self._cpu[i] - before[i]) / seconds for i in self._cpu if i in before}

    async def _decide(self) -> None:
        scaled = self._scaled()
        cpu = await self._read_cpu([g for _, g, _ in scaled])
        history, self._history = self._history, {}
        now = time.monotonic()
        for scaler, generation, scale in scaled:
            name, present = scaler.cluster_name(generation), len(generation.replicas)
            identities = [Identity(r.pid or 0, r.started) for r in generation.replicas]
            counted = self._requests.get(name)
            load = Load(
                cpu=[cpu[i] for i in identities if i in cpu],
                requests=sum(counted) / len(counted) if counted else None,
            )
            newest = scaling.recommend(now, present, generation.spec.replicas, scale, load)
            known = [*history.get(name, [Recommendation(now, present, "")]), newest]
            self._history[name] = [r for r in known if r.at > now - scale.down_after]
            followed = scaling.stabilize(present, newest, known, scale.down_after)
            scaler.follow(generation, newest, followed.replicas)
