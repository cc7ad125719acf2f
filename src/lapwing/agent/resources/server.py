"""Servers of resources: started once, adopted after a restart of the agent, stopped cleanly.

Data lies in `data/<stack>/<environment>/<resource>` and survives `lapwing down`. The port is chosen
once and kept beside the data, so the URL that a service was started with stays right.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from lapwing.agent import logs, processes
from lapwing.agent.launch import Place
from lapwing.agent.processes import Identity
from lapwing.agent.resources import kinds
from lapwing.agent.state import ResourceProcess
from lapwing.desired.secrets import SecretStore
from lapwing.errors import ResourceError, SecretError
from lapwing.plan.model import Resource
from lapwing.settings import Settings
from lapwing.system.files import write_atomic

START = 30.0
"""Seconds that a server may take to answer."""
NOTE = "server.json"
"""The process that was last started on the data, written down beside it at once: two servers on
the same data would be the end of it."""
GRACE = 20.0
"""Seconds that a server may take to end: it has to write its data."""


def data_folder(settings: Settings, place: Place) -> Path:
    """Where the data of a resource is."""
    return settings.data / place.stack / place.environment / place.service


def log_of(settings: Settings, place: Place) -> Path:
    """What the server of a resource prints."""
    folder = logs.folder(settings.logs, place.stack, place.environment, place.service)
    return folder / "server.log"


async def ensure(
    place: Place, resource: Resource, record: ResourceProcess | None, settings: Settings
) -> ResourceProcess | None:
    """Make a resource available. Returns the server's record, None where none is ours to run.

    A server that runs is adopted; one that died is started again on its data. Raises ResourceError
    with the end of its log if it does not answer.
    """
    folder = data_folder(settings, place)
    if resource.provider == "url":
        return None
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if resource.provider == "embedded":
        return None
    assert resource.program is not None
    program = kinds.of(resource.kind, resource.program)
    log = log_of(settings, place)
    if record is not None and processes.alive(Identity(record.pid, record.started)):
        await _answers(program, record.port, Identity(record.pid, record.started), log, place)
        return record
    orphan = _noted(folder)
    if orphan is not None:  # Started a moment before its agent was killed.
        await _answers(program, orphan.port, Identity(orphan.pid, orphan.started), log, place)
        return orphan
    data = folder / "data"
    data.mkdir(exist_ok=True)
    port = _port(folder)
    identity = processes.spawn(
        program.arguments(resource.program, data, port),
        environ={
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            processes.MARK: f"{settings.home}|{place}",
            **program.environ(folder),
        },
        folder=data,
        log=log,
    )
    made = ResourceProcess(pid=identity.pid, started=identity.started, port=port)
    try:
        write_atomic(folder / NOTE, msgspec.json.encode(made))
        await _answers(program, port, identity, log, place)
    except BaseException:
        processes.kill(identity)
        raise
    return made


async def stop(record: ResourceProcess) -> None:
    """Stop a server cleanly; kill it if it takes too long."""
    await processes.stop(Identity(record.pid, record.started), GRACE)


def url(
    place: Place, resource: Resource, record: ResourceProcess | None, settings: Settings
) -> str:
    """The URL that a service gets. Raises ResourceError if the server does not run, SecretError if
    the URL that the user gave cannot be read."""
    if resource.provider == "url":
        if resource.secret is None:
            raise SecretError(f"The URL of {place.service} was not stored.")
        store = SecretStore(settings.secrets)
        name = f"resource.{place.service}"
        return store.get(place.stack, place.environment, name, resource.secret)
    folder = data_folder(settings, place)
    if resource.provider == "embedded":
        return f"embedded://{folder}"
    if record is None or resource.program is None:
        raise ResourceError(f"{place.service} is not running.")
    scheme = kinds.of(resource.kind, resource.program).scheme
    database = f"/{place.stack}" if resource.kind == "mongodb" else ""
    return f"{scheme}://127.0.0.1:{record.port}{database}"


def _noted(folder: Path) -> ResourceProcess | None:
    """The server that was last started on this data, if it still runs."""
    try:
        noted = msgspec.json.decode((folder / NOTE).read_bytes(), type=ResourceProcess)
    except (OSError, msgspec.MsgspecError):
        return None
    return noted if processes.alive(Identity(noted.pid, noted.started)) else None


async def _answers(
    program: kinds.Program, port: int, identity: Identity, log: Path, place: Place
) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + START
    while not await _ping(program, port):
        if not processes.alive(identity):
            how = processes.reap(identity.pid)
            raise ResourceError(
                f"The server of {place.service} {how} while it started.", detail=logs.tail(log)
            )
        if loop.time() > until:
            raise ResourceError(
                f"The server of {place.service} did not answer within {START:g} s.",
                detail=logs.tail(log),
            )
        await asyncio.sleep(0.05)


async def _ping(program: kinds.Program, port: int) -> bool:
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(program.ping)
                answer = b""
                while program.pong not in answer:
                    more = await reader.read(4096)
                    if not more:
                        return False
                    answer += more
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False
    return True


def _port(folder: Path) -> int:
    file = folder / "port"
    try:
        port = int(file.read_text())
    except (OSError, ValueError):
        port = processes.free_port(set())
        write_atomic(file, str(port).encode())
    return port
