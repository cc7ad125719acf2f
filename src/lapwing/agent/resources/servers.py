"""The servers of one environment's resources: started, adopted, watched, restarted, stopped.

A server is a process of this machine, or a container of its engine (`images`), which is identified
by its first process. Its data is a folder of this machine, too; another kind of server never uses
it. A deployment replaces a container if it states another image or memory limit; at any other
time the one that ran last is started, so that an older image never opens the data by accident.

A watcher waits for the exit of each server and restarts it on its data and port, with growing
delays. A server that is not running has no record, so the status cannot report it as running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from lapwing.agent import logs, processes, termination, watching
from lapwing.agent.containers import Containers
from lapwing.agent.processes import Identity, Owner, RestartDelay
from lapwing.agent.resources import images, kinds, launches
from lapwing.agent.resources.launches import Server
from lapwing.agent.state import FileWriter, ResourceProcess, boot_id
from lapwing.errors import EngineError, LapwingError, ResourceError
from lapwing.plan.model import Resource, ResourceContainer
from lapwing.settings import Settings
from lapwing.system.files import write_atomic

LABEL = "resource"
"""The label of the owners of servers."""
START_TIMEOUT_S = 30.0
CONTAINER_START_TIMEOUT_S = 180.0
"""How long an image may take to create its database."""
STOP_GRACE_S = 20.0
"""How long a server may take to exit: it has to write its data."""
RECORD = "server.json"
"""The process last started on the data, recorded beside it at once: two servers on the same data
would corrupt it."""


class Servers:
    """Runs the servers of resources and maintains `records`, the running ones by resource name.

    `changed` is called after a record changed; `report` takes a sentence for the event log.
    """

    def __init__(
        self,
        records: dict[str, ResourceProcess],
        settings: Settings,
        writer: FileWriter,
        *,
        containers: Containers,
        owner: Callable[[str], Owner],
        changed: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self._records = records
        self._settings = settings
        self._writer = writer
        self._creator = FileWriter()  # Separate, because new data may take long.
        self._containers = containers
        self._owner = owner
        self._changed = changed
        self._report = report
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._stops: dict[str, asyncio.Task[None]] = {}

    async def ensure(self, name: str, resource: Resource, *, replace: bool = False) -> None:
        """Start a resource's server and keep it running. Idempotent.

        A deployment may `replace` a container by another one.

        Raises ResourceError with the end of the server's log if it does not respond.
        """
        if name in self._stops:
            await asyncio.wait({self._stops[name]})
        await self._unwatch(name)
        await self._start(name, resource, replace=replace)
        if name in self._records:
            self._watch(name, resource)

    def retry(self, name: str, resource: Resource) -> None:
        """Keep trying to start a server that could not be started and has to run."""
        if name not in self._watchers and resource.provider in ("binary", "container"):
            self._watch(name, resource)

    def stop_all_but(self, needed: Iterable[str]) -> None:
        """Begin to stop the servers that are not needed; each has a record until it has exited."""
        known = set(self._records) | set(self._watchers)
        for name in known - set(needed) - set(self._stops):
            self._stops[name] = asyncio.create_task(self._stop(name))

    async def _stop(self, name: str) -> None:
        try:
            await self._unwatch(name)
            record = self._records.get(name)
            if record is not None:
                await self._end(self._owner(name), record)
                self._records.pop(name, None)
                self._changed()
        except EngineError as error:
            self._report(f"The server of {name} could not be stopped: {error}")
        finally:
            self._stops.pop(name, None)

    async def _end(self, owner: Owner, record: ResourceProcess) -> None:
        """Stop a server. Raises EngineError if its container is still running."""
        mark = f"{self._settings.home}|{owner}"
        if record.container is not None:
            await self._containers.stop(_identity(record), mark, STOP_GRACE_S)
        else:
            await termination.stop(
                _identity(record), STOP_GRACE_S, mark, stop_signal=record.stop_signal
            )

    def unwatch_all(self) -> None:
        """Stop watching, and leave every server running."""
        for task in [*self._watchers.values(), *self._stops.values()]:
            task.cancel()
        self._watchers.clear()
        self._stops.clear()

    def _watch(self, name: str, resource: Resource) -> None:
        self._watchers[name] = asyncio.create_task(self._keep_running(name, resource))

    async def _unwatch(self, name: str) -> None:
        """End a watcher, and wait until a process that it was starting is gone."""
        watcher = self._watchers.pop(name, None)
        if watcher is not None:
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def _keep_running(self, name: str, resource: Resource) -> None:
        delay = RestartDelay()
        loop = asyncio.get_running_loop()
        while True:
            record, began = self._records.get(name), loop.time()
            if record is not None:
                how = await self._ended(self._owner(name), record)
                self._records.pop(name, None)
                self._changed()
                self._report(f"The server of {name} {how}; restarting it.")
                delay.record_run(loop.time() - began)
            await delay.wait()
            try:
                await self._start(name, resource)
            except (LapwingError, OSError) as error:
                self._report(f"The server of {name} could not be started: {error}")

    async def _ended(self, owner: Owner, record: ResourceProcess) -> str:
        """Wait for the exit of a server, and keep its log written; return how it ended."""
        identity, log = _identity(record), launches.log_of(self._settings, owner)
        if record.container is not None:
            return await self._containers.watch(identity, f"{self._settings.home}|{owner}", log)
        return await watching.watch(identity, log)

    async def _start(self, name: str, resource: Resource, *, replace: bool = False) -> None:
        record = self._records.get(name)
        found = await self._running(self._owner(name), resource, record, replace=replace)
        if found is None:
            self._records.pop(name, None)
        else:
            self._records[name] = found
        self._changed()

    async def _running(
        self, owner: Owner, resource: Resource, record: ResourceProcess | None, *, replace: bool
    ) -> ResourceProcess | None:
        """Adopt or start the server of a resource; None where the agent runs none."""
        if resource.provider == "url":
            return None
        folder = launches.data_folder(self._settings, owner)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if resource.provider == "embedded":
            return None
        if record is None or not processes.alive(_identity(record)):
            record = _recorded(folder)  # Started just before the agent was killed.
        container = resource.container
        wanted = container if isinstance(container, ResourceContainer) else None
        if wanted is not None and not replace:
            wanted = images.recorded(folder) or wanted
            resource = msgspec.structs.replace(resource, container=wanted)
        if record is not None and record.container != wanted:
            await self._end(owner, record)
            record = None
        if wanted is None:
            await self._creator.run(launches.prepare_data, self._settings, owner, resource)
            server = await self._writer.run(
                launches.prepare_program, self._settings, owner, resource
            )
        else:
            server = await self._writer.run(
                launches.prepare_container, self._settings, owner, resource, fresh=record is None
            )
        if record is None:
            record = await self._spawn(owner, server, wanted)
        else:
            await self._wait_until_responding(owner, record, server)
        if wanted is not None:
            await self._writer.run(images.record, folder, wanted)
            await self._writer.run(write_atomic, folder / launches.COMPLETE, b"")
        return record

    async def _spawn(
        self, owner: Owner, server: Server, container: ResourceContainer | None
    ) -> ResourceProcess:
        """Start a server, record it at once, and wait until it responds."""
        if container is None:
            identity = processes.spawn(server.launch, launches.log_of(self._settings, owner))
        else:
            log = launches.log_of(self._settings, owner)
            identity = await self._containers.start(server.launch, log)
        started = ResourceProcess(
            pid=identity.pid,
            started=identity.started,
            port=server.port,
            boot=boot_id(),
            container=container,
            stop_signal=server.stop_signal,
        )
        file = launches.data_folder(self._settings, owner) / RECORD
        try:
            await self._writer.run(write_atomic, file, msgspec.json.encode(started))
            await self._wait_until_responding(owner, started, server)
        except BaseException:
            if container is not None:
                await self._containers.kill(identity, server.launch.environ[processes.MARK])
            else:
                await termination.kill(identity, watched=True)
            raise
        return started

    async def _wait_until_responding(
        self, owner: Owner, record: ResourceProcess, server: Server
    ) -> None:
        """Wait for the first response. Raises ResourceError with the end of the log."""
        loop = asyncio.get_running_loop()
        contained = record.container is not None
        timeout = CONTAINER_START_TIMEOUT_S if contained else START_TIMEOUT_S
        until = loop.time() + timeout
        ended = asyncio.create_task(self._ended(owner, record)) if contained else None
        try:
            while not await responds(server.probe, record.port, server.password):
                problem = None
                if ended is not None and ended.done():
                    problem = f"{ended.result()} during start-up"
                elif ended is None and not processes.alive(_identity(record)):
                    await processes.output_written(_identity(record))
                    problem = f"{processes.reap(record.pid)} during start-up"
                elif loop.time() > until:
                    problem = f"did not respond within {timeout:g} s"
                if problem is not None:
                    log = launches.log_of(self._settings, owner)
                    raise ResourceError(
                        f"The server of {owner.service} {problem}.",
                        detail=logs.tail(log),
                        hint=f"Its log is {log}.",
                    )
                await asyncio.sleep(0.05)
        finally:
            if ended is not None:
                ended.cancel()
                await asyncio.gather(ended, return_exceptions=True)


def _identity(record: ResourceProcess) -> Identity:
    return Identity(record.pid, record.started)


def _recorded(folder: Path) -> ResourceProcess | None:
    """Return the server that was last started on this data, if it is still running."""
    try:
        found = msgspec.json.decode((folder / RECORD).read_bytes(), type=ResourceProcess)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.boot == boot_id() and processes.alive(_identity(found)) else None


async def responds(probe: kinds.Probe, port: int, password: str | None) -> bool:
    """Return whether a server on this machine gives the expected response."""
    sent = probe.sent.replace(b"{password}", (password or "").encode())
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(sent)
                response = b""
                while probe.expected not in response:
                    more = await reader.read(4096)
                    if not more:
                        return False
                    response += more
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return True
