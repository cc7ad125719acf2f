"""The servers of one environment's resources: started, adopted, watched, restarted, stopped.

Data is in `data/<stack>/<environment>/<resource>` and survives `lapwing down`. The port is chosen
once and kept beside the data, so the URL given to a service stays valid.

A server with new data requires a generated password, which is in the secret store and in the URL.
Data of an earlier version stays without one: its services run with a URL that has none.

A watcher waits for the exit of each server and restarts it on its data and port, with growing
delays. A server that is not running has no record, so the status cannot report it as running.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from lapwing.agent import logs, ports, processes, termination
from lapwing.agent.processes import Identity, Launch, Owner, RestartDelay
from lapwing.agent.resources import kinds
from lapwing.agent.state import FileWriter, ResourceProcess, boot_id
from lapwing.desired.secrets import SecretStore
from lapwing.errors import LapwingError, ResourceError, SecretError
from lapwing.plan.model import Resource
from lapwing.settings import Settings
from lapwing.system.files import write_atomic

START_TIMEOUT_S = 30.0
STOP_GRACE_S = 20.0
"""How long a server may take to exit: it has to write its data."""
LOGIN = "login"
"""The file with the version of the password that a server requires, beside its data."""
CONFIGURATION = "server.conf"
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
        owner: Callable[[str], Owner],
        changed: Callable[[], None],
        report: Callable[[str], None],
    ) -> None:
        self._records = records
        self._settings = settings
        self._writer = writer
        self._owner = owner
        self._changed = changed
        self._report = report
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._stops: dict[str, asyncio.Task[None]] = {}

    async def ensure(self, name: str, resource: Resource) -> None:
        """Start a resource's server and keep it running. Idempotent.

        Raises ResourceError with the end of the server's log if it does not respond.
        """
        if name in self._stops:
            await asyncio.wait({self._stops[name]})
        await self._unwatch(name)
        await self._start(name, resource)
        if name in self._records:
            self._watch(name, resource)

    def retry(self, name: str, resource: Resource) -> None:
        """Keep trying to start a server that could not be started and has to run."""
        if name not in self._watchers and resource.provider == "binary":
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
                mark = f"{self._settings.home}|{self._owner(name)}"
                await termination.stop(_identity(record), STOP_GRACE_S, mark)
                self._records.pop(name, None)
                self._changed()
        finally:
            self._stops.pop(name, None)

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
                how = await processes.watch(
                    _identity(record), log_of(self._settings, self._owner(name))
                )
                self._records.pop(name, None)
                self._changed()
                self._report(f"The server of {name} {how}; restarting it.")
                delay.record_run(loop.time() - began)
            await delay.wait()
            try:
                await self._start(name, resource)
            except (LapwingError, OSError) as error:
                self._report(f"The server of {name} could not be started: {error}")

    async def _start(self, name: str, resource: Resource) -> None:
        found = await self._running(self._owner(name), resource, self._records.get(name))
        if found is None:
            self._records.pop(name, None)
        else:
            self._records[name] = found
        self._changed()

    async def _running(
        self, owner: Owner, resource: Resource, record: ResourceProcess | None
    ) -> ResourceProcess | None:
        """Adopt or start the server of a resource; None where the agent runs none."""
        if resource.provider == "url":
            return None
        folder = data_folder(self._settings, owner)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        if resource.provider == "embedded":
            return None
        assert resource.program is not None
        program = kinds.of(resource.kind, resource.program)
        log = log_of(self._settings, owner)
        data = folder / "data"
        password = await self._writer.run(_password, self._settings, owner, program, data.exists())
        if record is None or not processes.alive(_identity(record)):
            record = _recorded(folder)  # Started just before the agent was killed.
        if record is not None:
            await _wait_until_responding(program, record, log, owner, password)
            return record
        data.mkdir(exist_ok=True)
        port = await self._writer.run(_port, folder)
        environ = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            processes.MARK: f"{self._settings.home}|{owner}",
        }
        arguments = program.arguments(resource.program, data, port)
        if password is not None and program.login is not None:
            facts = {"password": password, "database": owner.stack}
            environ |= {k: v.format(**facts) for k, v in program.login.environ.items()}
            if program.login.configuration is not None:
                file, text = folder / CONFIGURATION, program.login.configuration.format(**facts)
                await self._writer.run(write_atomic, file, text.encode())
                arguments = (arguments[0], str(file), *arguments[1:])
        identity = processes.spawn(Launch(arguments, environ, data), log)
        started = ResourceProcess(
            pid=identity.pid, started=identity.started, port=port, boot=boot_id()
        )
        try:
            await self._writer.run(write_atomic, folder / RECORD, msgspec.json.encode(started))
            await _wait_until_responding(program, started, log, owner, password)
        except BaseException:
            await termination.kill(identity, watched=True)
            raise
        return started


def data_folder(settings: Settings, owner: Owner) -> Path:
    """Return the folder of a resource's data."""
    return settings.data / owner.stack / owner.environment / owner.service


def log_of(settings: Settings, owner: Owner) -> Path:
    """Return the log of a resource's server."""
    folder = logs.folder(settings.logs, owner.stack, owner.environment, owner.service)
    return folder / "server.log"


def url(
    owner: Owner, resource: Resource, record: ResourceProcess | None, settings: Settings
) -> str:
    """Return the URL that a service gets for a resource. Reads and decrypts files.

    Raises ResourceError if the server is not running, SecretError if a URL that was set by the user
    cannot be read.
    """
    if resource.provider == "url":
        if resource.secret is None:
            raise SecretError(f"The URL of {owner.service} is not stored.")
        store = SecretStore(settings.secrets)
        name = f"resource.{owner.service}"
        return store.get(owner.stack, owner.environment, name, resource.secret)
    folder = data_folder(settings, owner)
    if resource.provider == "embedded":
        return f"embedded://{folder}"
    if record is None or resource.program is None:
        raise ResourceError(
            f"The server of {owner.service} is not running.",
            hint=f"`lapwing logs {owner.service}` shows its log.",
        )
    program = kinds.of(resource.kind, resource.program)
    database = f"/{owner.stack}" if resource.kind == "mongodb" else ""
    password = _password(settings, owner, program, has_data=True)
    login = f"{program.login.user}:{password}@" if program.login and password else ""
    return f"{program.scheme}://{login}127.0.0.1:{record.port}{database}"


def _identity(record: ResourceProcess) -> Identity:
    return Identity(record.pid, record.started)


def _recorded(folder: Path) -> ResourceProcess | None:
    """Return the server that was last started on this data, if it is still running."""
    try:
        found = msgspec.json.decode((folder / RECORD).read_bytes(), type=ResourceProcess)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if found.boot == boot_id() and processes.alive(_identity(found)) else None


async def _wait_until_responding(
    program: kinds.Program,
    record: ResourceProcess,
    log: Path,
    owner: Owner,
    password: str | None,
) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + START_TIMEOUT_S
    while not await _responds(program, record.port, password):
        problem = None
        if not processes.alive(_identity(record)):
            await processes.output_written(_identity(record))
            problem = f"{processes.reap(record.pid)} during start-up"
        elif loop.time() > until:
            problem = f"did not respond within {START_TIMEOUT_S:g} s"
        if problem is not None:
            raise ResourceError(
                f"The server of {owner.service} {problem}.",
                detail=logs.tail(log),
                hint=f"Its log is {log}.",
            )
        await asyncio.sleep(0.05)


async def _responds(program: kinds.Program, port: int, password: str | None) -> bool:
    greeting = program.login.greeting if program.login and password else ""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(greeting.format(password=password).encode() + program.ping)
                response = b""
                while program.pong not in response:
                    more = await reader.read(4096)
                    if not more:
                        return False
                    response += more
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return True


def _password(
    settings: Settings, owner: Owner, program: kinds.Program, has_data: bool
) -> str | None:
    """Return the password of a server; generate it before the first start on its data."""
    store = SecretStore(settings.secrets)
    where, name = (owner.stack, owner.environment), f"resource.{owner.service}.password"
    file = data_folder(settings, owner) / LOGIN
    if not file.exists():
        if has_data or program.login is None:
            return None
        write_atomic(file, store.generate(*where, name, 32).encode())
    return store.get(*where, name, file.read_text())


def _port(folder: Path) -> int:
    file = folder / "port"
    try:
        port = int(file.read_text())
    except (OSError, ValueError):
        port = ports.free_port(set())
        write_atomic(file, str(port).encode())
    return port
