"""Pulls the environments that `lapwing agent pull` named from their desired-state repositories.

    ls-remote -> if the branch or a secret changed, or the last pull failed: a process that pulls

The process (`targets/pull.py`) fetches, verifies and commits to the desired state of this machine,
which the agent follows anyway. So the agent loads none of that code, and is not disturbed by it. It
asks at an interval with jitter, after failures at twice the one before, up to 5 minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from lapwing.desired.remote import Remote
from lapwing.desired.secrets import SecretStore
from lapwing.errors import LapwingError
from lapwing.observed import pull
from lapwing.observed.pull import Source
from lapwing.settings import Settings
from lapwing.system.process import bound_to_caller

MAX_INTERVAL_S = 300.0
PULL = ("-m", "lapwing.targets.pull")
NICE = 10

Key = tuple[str, str]
"""Stack and environment."""


@dataclass(slots=True)
class _Task:
    """The pulls of an environment: when to look next, and what the last pull found."""

    source: Source
    due: float = 0.0
    retry: float = 0.0
    """When to pull again although nothing changed: after a failure."""
    failed: int = 0
    seen: object = None
    """The head of the remote and the versions of the secrets at the last pull."""
    problem: str | None = None
    running: asyncio.Task[None] | None = None

    def delay(self) -> float:
        """Return the time to the next attempt, with jitter."""
        longest = max(MAX_INTERVAL_S, self.source.interval)
        doubled = self.source.interval * 2.0 ** min(max(self.failed - 1, 0), 16)
        jitter: float = random.uniform(0.9, 1.1)  # noqa: S311 - not a secret
        return min(doubled, longest) * jitter


class Puller:
    """Pulls every source; `show` is called with the problem of an environment, None for none."""

    def __init__(self, settings: Settings, show: Callable[[Key, str | None], None]) -> None:
        self._settings = settings
        self._show = show
        self._tasks: dict[Key, _Task] = {}

    @property
    def is_idle(self) -> bool:
        """Whether no environment is pulled."""
        return not self._tasks

    def tick(self) -> None:
        """Begin the pulls that are due."""
        sources = pull.sources(self._settings)
        for key in self._tasks.keys() - sources.keys():
            self._show(key, None)
        self._tasks = {
            key: known if (known := self._tasks.get(key)) and known.source == source
            else _Task(source)
            for key, source in sources.items()
        }  # fmt: skip
        for key, task in self._tasks.items():
            is_running = task.running is not None and not task.running.done()
            if not is_running and time.monotonic() >= task.due:
                task.running = asyncio.create_task(self._pull(key, task))

    async def _pull(self, key: Key, task: _Task) -> None:
        """Look for a change, and pull it; after a failure again, also without a change."""
        try:
            seen = await asyncio.to_thread(self._look, key, task.source)
        except (LapwingError, OSError) as error:
            hint = error.hint if isinstance(error, LapwingError) else None
            task.problem = " ".join(filter(None, (str(error), hint, "Nothing was changed.")))
            await asyncio.to_thread(self._record, key, task.problem)
            task.failed, task.seen = task.failed + 1, None
            task.due = time.monotonic() + task.delay()
        else:
            if seen != task.seen or time.monotonic() >= task.retry:
                task.failed = 0 if seen != task.seen else task.failed
                task.problem = await self._run(key)
                task.failed = task.failed + 1 if task.problem else 0
                task.seen = seen
                task.retry = time.monotonic() + task.delay() if task.problem else math.inf
            task.due = time.monotonic() + min(task.delay(), task.source.interval)
        self._show(key, task.problem)

    async def _run(self, key: Key) -> str | None:
        """Pull an environment in a process; return why nothing could be deployed."""
        environ = {**os.environ, **self._settings.listener_environ()}
        command = bound_to_caller([sys.executable, *PULL, *key], environ)
        try:
            process = await asyncio.create_subprocess_exec(
                "nice", "-n", str(NICE), *command, env=environ, start_new_session=True
            )
        except OSError as error:
            return f"The pull of {'/'.join(key)} cannot be started: {error}."
        status = await process.wait()
        if status == 0:
            return None
        found = pull.state(self._settings, *key).problem
        return found or f"The pull of {'/'.join(key)} ended with status {status}."

    def _record(self, key: Key, problem: str) -> None:
        """Write a problem for commands, which show it before the first deployment."""
        found = pull.state(self._settings, *key)
        found.problem = problem
        with contextlib.suppress(OSError):
            pull.set_state(self._settings, *key, found)

    def _look(self, key: Key, source: Source) -> object:
        """Return the newest commit of a remote, and a value that changes with the secrets."""
        store = SecretStore(self._settings.secrets)
        environ = {**self._settings.environ, **store.variables(*key)}
        remote = Remote(source.url, self._settings.remotes, environ)
        return remote.head(), sorted(store.current(*key).items())
