"""Keeps the replicas of each generation running.

One watcher task per replica waits for its exit. A replica that exits while it is
started is not restarted: the start has failed. Any other is restarted, immediately the first time,
then with growing delays, so a service that crashes in a loop costs little. It keeps its port, so
Envoy's endpoints stay the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from lapwing.agent import checks, generations, logs, process_tree, processes, workers
from lapwing.agent.processes import Identity, Launch, RestartDelay
from lapwing.agent.runtime import Processes, Runtime
from lapwing.agent.state import Generation, Replica
from lapwing.errors import EngineUnreachableError, LapwingError, ReplicaError
from lapwing.plan.model import Service

ENGINE_RETRY_S = 1.0
"""Time between two attempts to start a replica while the container engine is unreachable."""
NOTHING = Identity(0, 0.0)
"""The identity of no process: only those with the mark are stopped."""


class Replicas:
    """Starts, watches and stops the replicas of one environment.

    `launch` returns how to start a replica, `mark_of` the mark of its processes, `changed` is
    called after a replica changed, `report` takes a sentence for the event log.
    """

    def __init__(
        self,
        *,
        environment: str,
        launch: Callable[[Generation, Replica], Awaitable[Launch]],
        log_of: Callable[[Generation, Replica], Path],
        mark_of: Callable[[Generation, Replica], str],
        changed: Callable[[], None],
        report: Callable[[str], None],
        runtime_of: Callable[[Service], Runtime] = lambda _: Processes(),
    ) -> None:
        self._environment = environment
        self._launch = launch
        self._log_of = log_of
        self._mark_of = mark_of
        self._changed = changed
        self._report = report
        self._runtime_of = runtime_of
        self._spawning: dict[tuple[int, int], asyncio.Lock] = {}
        self._watchers: dict[tuple[int, int], asyncio.Task[None]] = {}
        self._starting: set[tuple[int, int]] = set()

    async def start(
        self,
        generation: Generation,
        replicas: list[Replica] | None = None,
        note: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Start a generation (or some of its replicas) and wait until it is healthy.

        Replicas that are running are kept. `note` takes what is being waited for.

        Raises ReplicaError when one exits or does not become healthy in time; the others are then
        left running.
        """
        noted = set[str]()

        def waiting(reason: str) -> None:
            if reason not in noted:
                noted.add(reason)
                timeout = generation.spec.health.start_timeout
                note(f"{generation.service}: {reason}; waiting up to {timeout:g} s")

        wanted = generation.replicas if replicas is None else replicas
        keys = {(generation.number, replica.index) for replica in wanted}
        self._starting |= keys
        try:
            async with asyncio.TaskGroup() as group:
                for replica in wanted:
                    group.create_task(self._spawn(generation, replica))
            for replica in wanted:
                self._watch(generation, replica)
            self._changed()
            async with asyncio.TaskGroup() as group:
                for replica in wanted:
                    group.create_task(self._wait_until_healthy(generation, replica, waiting))
            for replica in wanted:
                if replica.pid is None:  # It exited while others were still starting.
                    problem = f"{replica.last_exit or 'ended'} during start-up"
                    raise self._start_error(generation, replica, problem)
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        finally:
            self._starting -= keys
        for replica in generation.replicas:
            self._watch(generation, replica)
        self._changed()

    def adopt(self, generation: Generation) -> None:
        """Watch a generation after a restart of the agent.

        Running replicas are adopted, the others restarted.
        """
        for replica in generation.replicas:
            if not is_running(replica):
                if replica.pid is not None:
                    replica.restarts += 1
                    replica.last_exit = "exited while the agent was not running"
                replica.pid, replica.ready = None, False
            self._watch(generation, replica)

    async def stop(self, generation: Generation, grace: float) -> None:
        """Stop a generation and every process that it started, within `grace` seconds."""
        for replica in generation.replicas:
            watcher = self._watchers.pop((generation.number, replica.index), None)
            if watcher is not None:
                watcher.cancel()
        await asyncio.gather(
            *(
                self._runtime_of(generation.spec).stop(
                    _identity(r) or NOTHING, self._mark_of(generation, r), grace
                )
                for r in generation.replicas
            )
        )
        for replica in generation.replicas:
            self._spawning.pop((generation.number, replica.index), None)
            replica.pid, replica.ready = None, False
        self._changed()

    def unwatch_all(self) -> None:
        """Stop watching, and leave every process running."""
        for watcher in self._watchers.values():
            watcher.cancel()
        self._watchers.clear()

    async def _spawn(self, generation: Generation, replica: Replica) -> None:
        """Start a replica that is not running. `start` and the watcher may both find it stopped."""
        key = (generation.number, replica.index)
        async with self._spawning.setdefault(key, asyncio.Lock()):
            if is_running(replica):
                return
            launch = await self._launch(generation, replica)
            runtime = self._runtime_of(generation.spec)
            identity = await runtime.start(launch, self._log_of(generation, replica))
        replica.pid, replica.started, replica.ready = identity.pid, identity.started, False

    def _watch(self, generation: Generation, replica: Replica) -> None:
        key = (generation.number, replica.index)
        if key not in self._watchers or self._watchers[key].done():
            self._watchers[key] = asyncio.create_task(self._keep_running(generation, replica))

    async def _keep_running(self, generation: Generation, replica: Replica) -> None:
        delay = RestartDelay()
        loop = asyncio.get_running_loop()
        name = f"{generation.service} {generation.label}.{replica.index}"
        runtime, mark = self._runtime_of(generation.spec), self._mark_of(generation, replica)
        while True:
            began = loop.time()
            identity = _identity(replica)
            if identity is not None:
                steady = loop.call_later(processes.STEADY_S, setattr, replica, "crashes", 0)
                try:
                    how = await runtime.watch(identity, mark, self._log_of(generation, replica))
                finally:
                    steady.cancel()
                starting = (generation.number, replica.index) in self._starting
                replica.ready, replica.last_exit = False, how
                if not starting:  # Before any wait, so that an observer finds the reason, too.
                    replica.restarts += 1
                    replica.crashes += not generations.has_finished(generation, replica)
                await runtime.kill(identity, mark)
                replica.pid = None
                self._changed()
                if starting:
                    return
                self._report(f"Replica {name} {how}; restarting it.")
                delay.record_run(loop.time() - began)
            await delay.wait()
            try:
                await self._spawn(generation, replica)
            except (LapwingError, OSError) as error:
                if isinstance(error, EngineUnreachableError):
                    delay.set_next(ENGINE_RETRY_S)
                if str(error) != replica.last_exit:
                    self._report(f"Replica {name} cannot be started: {error}")
                replica.last_exit = str(error)
                self._changed()
                continue
            await self._wait_until_ready(generation, replica)

    async def _wait_until_ready(self, generation: Generation, replica: Replica) -> None:
        """Wait until the restarted process is healthy, or has exited."""
        identity = _identity(replica)
        while identity is not None and processes.alive(identity):
            if _unchecked(generation.spec):
                await asyncio.sleep(generation.spec.health.settle)
                reason = None if processes.alive(identity) else "it exited"
            else:
                reason = await self._check(generation, replica)
            if reason is None:
                replica.ready = True
                self._changed()
                return
            await asyncio.sleep(checks.LAST_INTERVAL_S)

    async def _wait_until_healthy(
        self, generation: Generation, replica: Replica, waiting: Callable[[str], None]
    ) -> None:
        """Wait for the first healthy response. Raises ReplicaError if it does not come in time."""
        watcher = self._watchers[(generation.number, replica.index)]
        healthy = asyncio.create_task(self._healthy(generation, replica, waiting))
        try:
            await asyncio.wait({watcher, healthy}, return_when=asyncio.FIRST_COMPLETED)
            if not healthy.done():
                problem = f"{replica.last_exit or 'ended'} during start-up"
            elif reason := healthy.result():
                timeout = generation.spec.health.start_timeout
                problem = f"did not become healthy within {timeout:g} s: {reason}"
            else:
                replica.ready = True
                return
        finally:
            healthy.cancel()
        raise self._start_error(generation, replica, problem)

    async def _healthy(
        self, generation: Generation, replica: Replica, waiting: Callable[[str], None]
    ) -> str | None:
        health = generation.spec.health
        if _unchecked(generation.spec):
            await asyncio.sleep(health.settle)
            return None
        return await checks.wait_until_healthy(
            lambda: self._check(generation, replica), health.start_timeout, waiting
        )

    async def _check(self, generation: Generation, replica: Replica) -> str | None:
        """Check a starting replica, and without a health path each of its worker processes."""
        spec, identity = generation.spec, _identity(replica)
        reason = await checks.check_health(replica.port, spec)
        if reason or spec.health.path is not None or spec.container is not None or not identity:
            return reason
        mark = self._mark_of(generation, replica)
        return await workers.check(
            replica.port,
            checks.route_of(spec),
            spec.health,
            lambda: process_tree.members(identity, mark, ours=True),
        )

    def _start_error(self, generation: Generation, replica: Replica, problem: str) -> ReplicaError:
        return ReplicaError(
            f"{generation.service} {problem}.",
            detail=logs.tail(self._log_of(generation, replica)),
            hint=f"`lapwing logs {generation.service} -e {self._environment}` shows the whole log.",
        )


def _unchecked(spec: Service) -> bool:
    """Return whether a replica counts as healthy when it has run for the settle time."""
    return spec.kind == "worker" and spec.health.path is None


def _identity(replica: Replica) -> Identity | None:
    return None if replica.pid is None else Identity(replica.pid, replica.started)


def is_running(replica: Replica) -> bool:
    """Return whether the recorded process of a replica exists."""
    identity = _identity(replica)
    return identity is not None and processes.alive(identity)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
