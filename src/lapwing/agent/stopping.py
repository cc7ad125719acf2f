"""Stops generations in the background, so that a long `stop_grace` delays nothing else.

A generation that is removed from Envoy is in `state.stopping`, and has the time of its SIGKILL as
`deadline` before its first process gets SIGTERM. So a restarted agent finds it and continues.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

from lapwing.agent import logs
from lapwing.agent.launch import Launcher
from lapwing.agent.replicas import Replicas, is_running
from lapwing.agent.state import Generation
from lapwing.agent.store import Store
from lapwing.errors import LapwingError

log = logging.getLogger(__name__)


class Stopping:
    """Stops the generations in `state.stopping`, one task for each; calls `stopped` after it."""

    def __init__(
        self,
        store: Store,
        launcher: Launcher,
        replicas: Replicas,
        stopped: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._state = store.state
        self._launcher = launcher
        self._replicas = replicas
        self._stopped = stopped
        self._tasks: dict[tuple[int, int], asyncio.Task[None]] = {}

    async def begin(self, generations: Iterable[Generation]) -> None:
        """Begin to stop generations that Envoy does not know any more."""
        for generation in generations:
            if generation not in self._state.stopping:
                generation.deadline = None
                self._state.stopping.append(generation)
            if generation.deadline is None:
                generation.deadline = time.monotonic() + generation.spec.rollout.stop_grace
        await self._store.save()
        self.proceed()

    def proceed(self) -> None:
        """Continue every stop that is in no task: after a restart of the agent, or an error."""
        for generation in self._state.stopping:
            key = _key(generation)
            if generation.deadline is not None and key not in self._tasks:
                self._tasks[key] = asyncio.create_task(self._stop(generation))

    def adopt(self) -> None:
        """Continue the stops of an earlier agent.

        The process id of a replica that exited meanwhile may be that of another process.
        """
        for generation in self._state.stopping:
            if _key(generation) not in self._tasks:
                for replica in generation.replicas:
                    if not is_running(replica):
                        replica.pid = None
        self.proceed()

    async def ended(self, generations: Iterable[Generation]) -> None:
        """Wait until these generations are stopped."""
        tasks = [t for g in generations if (t := self._tasks.get(_key(g))) is not None]
        if tasks:
            await asyncio.wait(tasks)

    def unwatch_all(self) -> None:
        """Leave the stops in progress to the next agent."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _stop(self, generation: Generation) -> None:
        grace = generation.spec.rollout.stop_grace
        left = (generation.deadline or 0.0) - time.monotonic()
        try:
            await asyncio.sleep(left - grace)
            await self._replicas.stop(generation, max(0.0, min(left, grace)))
            self._stopped()
            self._state.stopping.remove(generation)
            self._store.save_soon()
            folder = self._launcher.log_folder(generation.service)
            await asyncio.to_thread(logs.remove_old, folder)
        except (LapwingError, OSError):
            log.exception("Stopping %s failed; trying again.", generation.label)
        finally:
            self._tasks.pop(_key(generation), None)


def _key(generation: Generation) -> tuple[int, int]:
    """Return a key for a generation; surplus replicas have another one than the rest."""
    return generation.number, min((r.index for r in generation.replicas), default=-1)
