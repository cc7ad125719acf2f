"""The servers of one environment's resources: started, watched, started again, stopped.

As with replicas, a watcher waits for the end of each server and starts it again on its data and
its port, with pauses that double, so that services find it where they left it. A server that is
not running is in no record, so the status cannot call it so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from lapwing.agent import processes
from lapwing.agent.launch import Place
from lapwing.agent.processes import Identity
from lapwing.agent.resources import server
from lapwing.agent.state import ResourceProcess
from lapwing.errors import LapwingError
from lapwing.plan.model import Resource
from lapwing.settings import Settings

FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
STEADY = 60.0
"""Seconds after which a server counts as steady again."""


class Servers:
    """Keeps `records`, the running servers by the name of their resource.

    `place` tells where a resource belongs, `changed` is called whenever a record has changed,
    `tell` takes a sentence for the event log.
    """

    def __init__(
        self,
        records: dict[str, ResourceProcess],
        settings: Settings,
        *,
        place: Callable[[str], Place],
        changed: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        self._records = records
        self._settings = settings
        self._place = place
        self._changed = changed
        self._tell = tell
        self._watchers: dict[str, asyncio.Task[None]] = {}

    async def ensure(self, name: str, resource: Resource) -> None:
        """Make a resource available, and keep it so. Doing it twice changes nothing.

        Raises ResourceError if its server does not answer.
        """
        await self._unwatch(name)
        await self._start(name, resource)
        if name in self._records:
            self._watch(name, resource)

    def bring_back(self, name: str, resource: Resource) -> None:
        """Go on trying to start a server that could not be started and has to run."""
        if name not in self._watchers and resource.provider == "binary":
            self._watch(name, resource)

    async def stop_all_but(self, needed: Iterable[str]) -> bool:
        """Stop the servers that are not needed; whether there were any."""
        surplus = (set(self._records) | set(self._watchers)) - set(needed)
        for name in surplus:
            await self._unwatch(name)
            record = self._records.pop(name, None)
            if record is not None:
                await server.stop(record)
        return bool(surplus)

    def forget(self) -> None:
        """Stop watching, and leave every server as it is."""
        for watcher in self._watchers.values():
            watcher.cancel()
        self._watchers.clear()

    def _watch(self, name: str, resource: Resource) -> None:
        self._watchers[name] = asyncio.create_task(self._keep_alive(name, resource))

    async def _unwatch(self, name: str) -> None:
        """End a watcher, and wait until what it was just starting is gone."""
        watcher = self._watchers.pop(name, None)
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _start(self, name: str, resource: Resource) -> None:
        record = self._records.get(name)
        found = await server.ensure(self._place(name), resource, record, self._settings)
        if found is None:
            self._records.pop(name, None)
        else:
            self._records[name] = found
        self._changed()

    async def _keep_alive(self, name: str, resource: Resource) -> None:
        pause = FIRST_PAUSE
        loop = asyncio.get_running_loop()
        while True:
            record, began = self._records.get(name), loop.time()
            if record is not None:
                how = await processes.ended(Identity(record.pid, record.started))
                self._records.pop(name, None)
                self._changed()
                self._tell(f"the server of {name} {how}; starting it again")
                if loop.time() - began > STEADY:
                    pause = FIRST_PAUSE
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                await self._start(name, resource)
            except (LapwingError, OSError) as error:
                self._tell(f"the server of {name} could not be started: {error}")
