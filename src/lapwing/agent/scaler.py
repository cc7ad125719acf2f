"""Changes the number of replicas of the services of one environment.

    added     started, healthy, then in Envoy's cluster
    removed   no new requests (a draining endpoint), then stopped when its last request has ended

A replica that is being started is in no record until it is healthy, so after a crash of the agent
it is an orphan, which the next agent kills. A change by the autoscaler runs in the background; a
rollout ends it first (`settle`). While a rollout is paused, the running release is scaled; when it
is promoted, its candidates first get as many replicas (`Steps`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable

import msgspec

from lapwing.agent import footprint, generations, ports
from lapwing.agent.context import Context
from lapwing.agent.replicas import Replicas
from lapwing.agent.rollout import State
from lapwing.agent.scaling import Recommendation
from lapwing.agent.state import Generation
from lapwing.agent.stopping import Stopping
from lapwing.agent.store import Store
from lapwing.errors import LapwingError, ProxyError
from lapwing.observed.status import ScalingStatus
from lapwing.plan.model import Service

log = logging.getLogger(__name__)

RETRY_S = 60.0
"""Time between two attempts to add replicas after one has failed."""
MIN_AVAILABLE = 0.1
"""The share of the machine's memory that has to stay available when replicas are added."""


class Scaler:
    """Adds and removes replicas in one environment."""

    def __init__(
        self, context: Context, store: Store, replicas: Replicas, stopping: Stopping
    ) -> None:
        self._context = context
        self._store = store
        self._state = store.state
        self._replicas = replicas
        self._stopping = stopping
        self._changes: dict[str, asyncio.Task[None]] = {}
        self._not_before: dict[str, float] = {}

    async def add(
        self, generation: Generation, count: int, note: Callable[[str], None] = lambda _: None
    ) -> None:
        """Start `count` more replicas; when they are healthy, they are in the generation.

        `note` takes what is being waited for. Raises as `Replicas.start` does; then none is added.
        """
        port = functools.partial(self.free_port, generation.spec)
        more = generations.new_replicas(self._state, generation, count, port)
        try:
            await self._replicas.start(generation, more, note)
        except BaseException:
            failed = msgspec.structs.replace(generation, replicas=more)
            await self._stopping.begin([failed])
            raise
        generation.replicas.extend(more)

    async def add_missing(
        self, generation: Generation, spec: Service, note: Callable[[str], None]
    ) -> bool:
        """Add replicas until there are as many as are active, within the limits of `spec`.

        Return whether any was missing. Raises as `add` does.
        """
        active = self._state.of(generation.service, "active")
        count = spec.replica_count(len(active.replicas) if active else 0)
        missing = count - len(generation.replicas)
        if missing > 0:
            await self.add(generation, missing, note)
        return missing > 0

    def remove_surplus(self) -> None:
        """Drain the replicas of active generations that exceed their number."""
        for generation in [g for g in self._state.generations if g.role == "active"]:
            present = len(generation.replicas)
            surplus = present - generation.spec.replica_count(present)
            if surplus > 0:
                generations.split_off(self._state, generation, surplus)

    def free_port(self, spec: Service) -> int:
        """Return a port for a replica of a service; 0 for a worker."""
        return 0 if spec.kind == "worker" else ports.free_port(self._context.ports())

    # Autoscaling

    def scaled(self) -> list[Generation]:
        """Return the generations that are autoscaled now: none during a rollout that proceeds."""
        rollout = self._state.rollout
        if rollout is not None and (rollout.promoted or rollout.state is not State.HOLDING):
            return []
        return [g for g in self._state.generations if g.role == "active" and g.spec.scale]

    def cluster_name(self, generation: Generation) -> str:
        """Return Envoy's cluster name for a generation."""
        return self._state.cluster_name(generation)

    def follow(self, generation: Generation, newest: Recommendation, wanted: int) -> None:
        """Begin to change the number of replicas to `wanted`, unless a change is in progress.

        Nothing is changed if a rollout has begun since the load was measured.
        """
        if not any(g is generation for g in self.scaled()):
            return
        service, now = generation.service, time.monotonic()
        self._show(generation, wanted, newest.reason)
        if service in self._changes or now < self._not_before.get(service, now):
            return
        if wanted != len(generation.replicas):
            change = self._change(generation, wanted, newest.reason)
            task = self._changes[service] = asyncio.create_task(change)
            task.add_done_callback(lambda _: self._changes.pop(service, None))

    async def settle(self) -> None:
        """End the changes in progress: replicas that are not healthy yet are stopped."""
        changes = [*self._changes.values()]
        for change in changes:
            change.cancel()
        await asyncio.gather(*changes, return_exceptions=True)

    async def _change(self, generation: Generation, wanted: int, reason: str) -> None:
        service, before = generation.service, len(generation.replicas)
        try:
            if wanted > before:
                fitting = await asyncio.to_thread(_fitting, generation, wanted - before)
                if fitting < wanted - before:
                    reason += "; the machine has too little memory for more replicas"
                    self._show(generation, wanted, reason)
                if fitting == 0:
                    return
                await self.add(generation, fitting)
            else:
                generations.split_off(self._state, generation, before - wanted)
            await self._store.save()
            await self._context.publisher.publish()
        except (LapwingError, OSError) as error:
            self._not_before[service] = time.monotonic() + RETRY_S
            self._store.event("replica", f"{service} could not be scaled: {error}")
            if isinstance(error, ProxyError):
                self._store.problem = str(error)  # `Maintenance.tick` publishes again.
            return
        except Exception:
            self._not_before[service] = time.monotonic() + RETRY_S
            log.exception("%s could not be scaled.", service)
            return
        number = len(generation.replicas)
        replicas = "1 replica" if number == 1 else f"{number} replicas"
        self._store.event("replica", f"Scaled {service} from {before} to {replicas}: {reason}.")

    def _show(self, generation: Generation, wanted: int, reason: str) -> None:
        """Show in the status how many replicas a service should have, and why."""
        scale = generation.spec.scale
        if scale:
            shown = ScalingStatus(
                min=generation.spec.replicas, max=scale.max, wanted=wanted, reason=reason
            )
            self._store.show_scaling(generation.number, shown)


def _fitting(generation: Generation, count: int) -> int:
    """Return for how many of `count` more replicas the machine has enough memory.

    A replica takes what its service requests (`resources.memory`), or what the largest one takes
    now if that is more. Blocks.
    """
    total, available = footprint.machine_memory()
    found = footprint.footprints({r.pid for r in generation.replicas if r.pid is not None})
    each = max([generation.spec.memory or 0, *(f.memory for f in found.values())])
    return min(count, max(0, int((available - MIN_AVAILABLE * total) // each))) if each else count
