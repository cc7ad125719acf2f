"""Dump databases in containers by the tools of their image, and load the dumps into new data.

A dump is made in the running container. A second container of the same image loads it into a new
folder, which then replaces the data like the folder of any other part. The data of Redis is a file,
so nothing is loaded: the second container only has to start on it. For programs of the machine, see
`program_dumps.py`.

The second container belongs to the process that starts it, like a one-off command: the agent
removes the container when that process has ended.

Sources: PostgreSQL documentation, pg_dump and pg_restore; MySQL Reference Manual 8.4, mysqldump and
Using Option Files; MongoDB Database Tools, mongodump and mongorestore; Docker Engine API, Exec.
"""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from lapwing.agent import logs, one_off, ports, processes, volumes
from lapwing.agent.container_request import name_of
from lapwing.agent.containers import Containers
from lapwing.agent.engine import Engine, find_socket
from lapwing.agent.processes import MARK, Identity, Launch, Owner
from lapwing.agent.resources import images, launches, program_dumps, servers
from lapwing.errors import BackupError, EngineError
from lapwing.plan.model import Resource, ResourceContainer, ResourceKind
from lapwing.settings import Settings
from lapwing.system.files import write_atomic

FILE = "dump"
"""The dump, beside the data that it is loaded into."""
# Options in a file, because arguments are visible to others.
_MYSQL = """\
exec {} 3<<EOF
[client]
user=root
password="$(cat "$MYSQL_ROOT_PASSWORD_FILE")"
EOF
"""
_OPTIONS = "--defaults-extra-file=/dev/fd/3"
_MONGODB = """\
exec {} --config=/dev/fd/3 --username="$MONGO_INITDB_ROOT_USERNAME" \
  --authenticationDatabase=admin 3<<EOF
password: "$(cat "$MONGO_INITDB_ROOT_PASSWORD_FILE")"
EOF
"""
_LOGIN = 'export PGPASSWORD="$(cat "$POSTGRES_PASSWORD_FILE")"; '
_USER = '-U "$POSTGRES_USER" -d "$POSTGRES_DB"'


@dataclass(frozen=True, slots=True)
class Tool:
    """The shell scripts that dump and load a database, run in its container."""

    dump: str
    load: str


_MONGORESTORE = shlex.join(program_dumps.MONGORESTORE)
TOOLS: dict[ResourceKind, Tool] = {
    "mongodb": Tool(
        dump=_MONGODB.format("mongodump --archive"),
        load=_MONGODB.format(f"mongorestore --archive={images.SECRETS}/{FILE} {_MONGORESTORE}"),
    ),
    "mysql": Tool(
        dump=_MYSQL.format(
            f'mysqldump {_OPTIONS} {shlex.join(program_dumps.MYSQLDUMP)} "$MYSQL_DATABASE"'
        ),
        load=_MYSQL.format(f'mysql {_OPTIONS} "$MYSQL_DATABASE" <{images.SECRETS}/{FILE}'),
    ),
    "postgres": Tool(
        dump=f"{_LOGIN}exec pg_dump {shlex.join(program_dumps.PG_DUMP)} {_USER}",
        load=f"{_LOGIN}exec pg_restore {shlex.join(program_dumps.PG_RESTORE)} {_USER} "
        f"{images.SECRETS}/{FILE}",
    ),
}


def has_tool(resource: Resource) -> bool:
    """Return whether a database is copied by a dump tool, not by its files or a snapshot."""
    return resource.provider == "container" or program_dumps.runs(resource)


def dump(settings: Settings, owner: Owner, resource: Resource, to: Path) -> None:
    """Dump a running database into a new file. Raises BackupError, OSError."""
    if program_dumps.runs(resource):
        assert resource.program is not None
        port = int((launches.data_folder(settings, owner) / "port").read_text())
        password = launches.password_for(settings, owner, required=False)
        server = program_dumps.Server(owner, resource.program, port, password)
        return program_dumps.dump(server, to)

    async def run() -> None:
        container = name_of(f"{settings.home}|{owner}")
        with to.open("xb") as file:
            async with Engine(find_socket(settings.environ)) as engine:
                await _execute(engine, container, TOOLS[resource.kind].dump, file.write)

    try:
        asyncio.run(run())
    except EngineError as error:
        raise BackupError(
            f"{owner.service} cannot be dumped: {error.message}",
            hint=f"Check that it is running: `lapwing status -e {owner.environment}`.",
        ) from error


def load(
    settings: Settings,
    owner: Owner,
    resource: Resource,
    folder: Path,
    facts: Mapping[str, str],
    then: Callable[[int], str],
) -> str:
    """Run a container on a folder, and load the dump there; return the result of `then`.

    `facts` are the passwords and the database; `then` is called with the port while the server is
    running. Raises BackupError, OSError.
    """
    caller = Identity(os.getpid(), processes.started(os.getpid()) or 0.0)
    temporary = replace(owner, label=one_off.label(caller, "load"), index=caller.pid)
    port, dumped = ports.free_port(set()), folder / FILE
    launch = images.prepare(settings, temporary, resource, folder, facts, port=port)
    assert launch.container is not None
    files = dict(launch.container.files)
    if dumped.exists():
        volumes.change_owner(dumped, launch.container.user, owner.service)
        files[f"{images.SECRETS}/{FILE}"] = dumped
    options = replace(launch.container, network=None, alias=None, files=files)

    async def use(engine: Engine) -> str:
        if dumped.exists():
            script = TOOLS[resource.kind].load
            await _execute(engine, name_of(launch.environ[MARK]), script, lambda _: None)
        return await asyncio.to_thread(then, port)

    try:
        found = asyncio.run(
            _with_server(
                settings, replace(launch, container=options), port, resource, facts["password"], use
            )
        )
    except EngineError as error:
        raise BackupError(
            f"{owner.service} cannot be restored: {error.message}",
            hint="Restore another backup: `lapwing backup list "
            f"-e {owner.environment}` shows them.",
        ) from error
    dumped.unlink(missing_ok=True)
    write_atomic(folder / launches.COMPLETE, b"")
    return found


async def _with_server(
    settings: Settings,
    launch: Launch,
    port: int,
    resource: Resource,
    password: str,
    use: Callable[[Engine], Awaitable[str]],
) -> str:
    """Start a container, call `use` once it responds, and stop it gracefully."""
    containers, mark, log = Containers(settings), launch.environ[MARK], launch.folder / "load.log"
    identity = await containers.start(launch, log)
    watcher = asyncio.create_task(containers.watch(identity, mark, log))
    try:
        await _wait_until_responding(resource, port, password, watcher, log)
        async with Engine(find_socket(settings.environ)) as engine:
            return await use(engine)
    finally:
        await asyncio.shield(containers.stop(identity, mark, servers.STOP_GRACE_S))
        watcher.cancel()
        await asyncio.gather(watcher, return_exceptions=True)
        log.unlink(missing_ok=True)


async def _wait_until_responding(
    resource: Resource, port: int, password: str, watcher: asyncio.Task[str], log: Path
) -> None:
    until = asyncio.get_running_loop().time() + servers.CONTAINER_START_TIMEOUT_S
    probe = images.SERVERS[resource.kind].probe
    while not await servers.responds(probe, port, password):
        if watcher.done() or asyncio.get_running_loop().time() > until:
            assert isinstance(resource.container, ResourceContainer)
            raise BackupError(
                f"{resource.container.image} does not start on the data.", detail=logs.tail(log)
            )
        await asyncio.sleep(0.1)


async def _execute(
    engine: Engine, container: str, script: str, write: Callable[[bytes], object]
) -> None:
    """Run a shell script in a container. Raises EngineError with the end of its messages."""
    status, messages = await engine.execute(container, ("sh", "-c", script), write)
    if status != 0:
        text = messages.decode(errors="replace").strip()[-1000:]
        raise EngineError(f"{text or 'no message'} (exit status {status})")
