"""Replicas: keeps the processes of each generation running.

One watcher task per replica waits for its end. A replica of a candidate that ends while it is on
trial is not started again: its end is the answer to the trial. Any other is restarted, at once the
first time, then with pauses that double, so a service that crashes in a loop costs little; a
replica that has run for a minute starts afresh with short pauses. It keeps its port, so Envoy's
endpoints stay what they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lapwing.agent import health, logs, processes
from lapwing.agent.launch import Launch
from lapwing.agent.processes import Identity
from lapwing.agent.state import Generation, Replica
from lapwing.errors import LapwingError, ReplicaError
from lapwing.plan.model import Service

if TYPE_CHECKING:
    import httpx

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
STEADY = 60.0
"""Seconds after which a replica counts as steady again."""


class Replicas:
    """Starts, watches and stops the replicas of one environment.

    `launch` tells how to start a replica, `changed` is called whenever something about one has
    changed, `tell` takes a sentence for the event log.
    """

    def __init__(
        self,
        *,
        launch: Callable[[Generation, Replica], Launch],
        log_of: Callable[[Generation, Replica], Path],
        client: httpx.AsyncClient,
        changed: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        self._launch = launch
        self._log_of = log_of
        self._client = client
        self._changed = changed
        self._tell = tell
        self._watchers: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._on_trial: set[int] = set()

    async def start(self, generation: Generation, replicas: list[Replica] | None = None) -> None:
        """Start a generation (or some of its replicas) and wait until it is healthy.

        Replicas that already run are kept. Raises ReplicaError when one ends or does not become
        healthy in time; the others are then left as they are.
        """
        self._on_trial.add(generation.number)
        wanted = generation.replicas if replicas is None else replicas
        try:
            for replica in wanted:
                if not _runs(replica):
                    self._spawn(generation, replica)
                self._watch(generation, replica)
            self._changed()
            async with asyncio.TaskGroup() as group:
                for replica in wanted:
                    group.create_task(self._prove(generation, replica))
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            self._on_trial.discard(generation.number)
        for replica in generation.replicas:
            self._watch(generation, replica)
        self._changed()

    def keep(self, generation: Generation) -> None:
        """Take over a generation after a restart of the agent: running replicas are adopted, dead
        ones started again."""
        for replica in generation.replicas:
            if not _runs(replica):
                replica.pid, replica.ready = None, False
            self._watch(generation, replica)

    async def stop(self, generation: Generation, replicas: list[Replica] | None = None) -> None:
        """Stop a generation, or some of its replicas, and what they have started."""
        chosen = list(generation.replicas if replicas is None else replicas)
        for replica in chosen:
            watcher = self._watchers.pop((generation.number, replica.index), None)
            if watcher is not None:
                watcher.cancel()
        grace = generation.spec.rollout.stop_grace
        await asyncio.gather(
            *(processes.stop(i, grace) for r in chosen if (i := _identity(r)) is not None)
        )
        for replica in chosen:
            replica.pid, replica.ready = None, False
        self._changed()

    def forget(self) -> None:
        """Stop watching, and leave every process as it is."""
        for watcher in self._watchers.values():
            watcher.cancel()
        self._watchers.clear()

    def _spawn(self, generation: Generation, replica: Replica) -> None:
        launch = self._launch(generation, replica)
        identity = processes.spawn(
            launch.arguments,
            environ=launch.environ,
            folder=launch.folder,
            log=self._log_of(generation, replica),
        )
        replica.pid, replica.started, replica.ready = identity.pid, identity.started, False

    def _watch(self, generation: Generation, replica: Replica) -> None:
        key = (generation.number, replica.index)
        if key not in self._watchers or self._watchers[key].done():
            self._watchers[key] = asyncio.create_task(self._keep_alive(generation, replica))

    async def _keep_alive(self, generation: Generation, replica: Replica) -> None:
        pause = FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            identity = _identity(replica)
            if identity is not None:
                how = await processes.ended(identity)
                processes.kill(identity)
                replica.pid, replica.ready, replica.last_exit = None, False, how
                self._changed()
                if generation.number in self._on_trial:
                    return
                self._tell(f"{generation.service} {generation.label}.{replica.index} {how}")
                replica.restarts += 1
                if loop.time() - began > STEADY:
                    pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            if _runs(replica):
                continue  # `start` was faster.
            try:
                self._spawn(generation, replica)
            except (LapwingError, OSError) as error:
                replica.last_exit = str(error)
                continue
            await self._settle(generation, replica)

    async def _settle(self, generation: Generation, replica: Replica) -> None:
        """Wait, for as long as the restarted process lives, until it is healthy."""
        identity = _identity(replica)
        while identity is not None and processes.alive(identity):
            if _without_port(generation.spec):
                await asyncio.sleep(generation.spec.health.settle)
                reason = None if processes.alive(identity) else "it ended"
            else:
                reason = await health.probe(self._client, replica.port, generation.spec.health)
            if reason is None:
                replica.ready = True
                self._changed()
                return
            await asyncio.sleep(health.PAUSE_LATE)

    async def _prove(self, generation: Generation, replica: Replica) -> None:
        watcher = self._watchers[(generation.number, replica.index)]
        healthy = asyncio.create_task(_healthy(self._client, replica, generation.spec))
        try:
            await asyncio.wait({watcher, healthy}, return_when=asyncio.FIRST_COMPLETED)
            if not healthy.done():
                raise ReplicaError(
                    f"{generation.service} {replica.last_exit or 'ended'} while it started.",
                    detail=logs.tail(self._log_of(generation, replica)),
                    hint=f"`lapwing logs {generation.service}` shows the whole log.",
                )
            reason = healthy.result()
        finally:
            healthy.cancel()
        if reason is not None:
            raise ReplicaError(
                f"{generation.service} did not become healthy within "
                f"{generation.spec.health.start_timeout:g} s: {reason}.",
                detail=logs.tail(self._log_of(generation, replica)),
                hint=f"`lapwing logs {generation.service}` shows the whole log.",
            )
        replica.ready = True


async def _healthy(client: httpx.AsyncClient, replica: Replica, spec: Service) -> str | None:
    if _without_port(spec):
        await asyncio.sleep(spec.health.settle)
        return None
    return await health.wait(client, replica.port, spec.health)


def _without_port(spec: Service) -> bool:
    """Whether only time can tell that a replica is well."""
    return spec.kind == "worker" and spec.health.path is None


def _identity(replica: Replica) -> Identity | None:
    return None if replica.pid is None else Identity(replica.pid, replica.started)


def _runs(replica: Replica) -> bool:
    identity = _identity(replica)
    return identity is not None and processes.alive(identity)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
