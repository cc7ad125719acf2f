"""Dump databases of server programs of this machine, and load dumps into new data.

The files of mongod, MySQL and PostgreSQL cannot be copied while they run, so their client tools
have to be installed: beside the server program, or on the PATH. Passwords are in a file or a
variable, because arguments are visible to others.

Sources: MongoDB Database Tools, mongodump and mongorestore; MySQL Reference Manual 8.4, mysqldump;
PostgreSQL documentation, pg_dump and pg_restore.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lapwing.agent.processes import Owner
from lapwing.agent.resources import launches
from lapwing.agent.resources.kinds import USER
from lapwing.errors import BackupError
from lapwing.plan.model import Resource
from lapwing.system.files import write_atomic

# The databases of mongod with users and sessions are not loaded into another server.
MONGORESTORE = ("--stopOnError", "--nsExclude=admin.*", "--nsExclude=config.*")
MYSQLDUMP = (
    "--single-transaction", "--routines", "--events", "--no-tablespaces", "--set-gtid-purged=OFF",
)  # fmt: skip
PG_DUMP = ("--format=custom",)
# A dump contains no roles: owners and privileges of other roles would stop the load.
PG_RESTORE = ("--exit-on-error", "--no-owner", "--no-privileges")
MAX_MESSAGE_CHARS = 1000
_SERVER = ("--host=127.0.0.1", "--port={port}")
_MYSQL = ("--defaults-file={options}", *_SERVER)
_POSTGRES = (*_SERVER, f"--username={USER}", "--dbname={database}")


@dataclass(frozen=True, slots=True)
class Tools:
    """The commands that dump a database to standard output, and load it from a file.

    `{port}`, `{database}`, `{options}` (a file with the login) and `{file}` are replaced. The file
    is also the standard input of `load`. `package` is what contains both.
    """

    dump: tuple[str, ...]
    load: tuple[str, ...]
    package: str


TOOLS = {
    "mongod": Tools(
        dump=("mongodump", *_SERVER, "--archive"),
        load=("mongorestore", *_SERVER, "--archive={file}", *MONGORESTORE),
        package="the MongoDB Database Tools",
    ),
    "mysqld": Tools(
        dump=("mysqldump", *_MYSQL, *MYSQLDUMP, "{database}"),
        load=("mysql", *_MYSQL, "{database}"),
        package="the client programs of MySQL",
    ),
    "postgres": Tools(
        dump=("pg_dump", *PG_DUMP, *_POSTGRES),
        load=("pg_restore", *PG_RESTORE, *_POSTGRES, "{file}"),
        package="the client programs of PostgreSQL",
    ),
}
"""The tools by the name of the server program; others are copied by their files or a snapshot."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server of a resource (`owner`): its program, and how it is reached."""

    owner: Owner
    program: str
    port: int
    password: str | None


def runs(resource: Resource) -> bool:
    """Return whether a resource is a program of this machine that is dumped."""
    return resource.provider == "binary" and is_dumped(resource.program)


def is_dumped(program: str | None) -> bool:
    """Return whether a server program is dumped by its client tools."""
    return program is not None and Path(program).name in TOOLS


def missing(program: str) -> str | None:
    """Return the tool of a server program that is missing; None if both are installed."""
    tools = TOOLS[Path(program).name]
    return next((t for t in (tools.dump[0], tools.load[0]) if _find(t, program) is None), None)


def package(program: str) -> str:
    """Return what contains the tools of a server program."""
    return TOOLS[Path(program).name].package


def dump(server: Server, to: Path) -> None:
    """Write a dump of a running server into a new file. Raises BackupError, OSError."""
    with to.open("xb") as file:
        messages = _run(server, TOOLS[Path(server.program).name].dump, to, stdout=file)
    if messages is not None:
        raise BackupError(
            f"{server.owner.service} cannot be dumped: {messages}",
            hint=f"Check that it is running: `lapwing status -e {server.owner.environment}`.",
        )


def load(server: Server, dumped: Path) -> None:
    """Load a dump into a running server, and remove it. Raises BackupError, OSError."""
    messages = _run(server, TOOLS[Path(server.program).name].load, dumped)
    if messages is not None:
        raise BackupError(
            f"{server.owner.service} cannot be restored: {messages}",
            hint=f"Restore another backup: `lapwing backup list -e {server.owner.environment}` "
            "shows them.",
        )
    dumped.unlink()


def _run(
    server: Server, command: tuple[str, ...], file: Path, stdout: BinaryIO | None = None
) -> str | None:
    """Run a tool; return its messages if it fails. Raises BackupError if it is missing."""
    tool = _find(command[0], server.program)
    if tool is None:
        raise BackupError(
            f"{server.owner.service} needs {command[0]}, which is not installed.",
            hint=f"Install {package(server.program)}.",
        )
    options = file.with_name("client.cnf")
    database = server.owner.stack
    facts = {"port": server.port, "database": database, "options": options, "file": file}
    login = f'[client]\nuser={USER}\npassword="{server.password}"\n'
    variables = {**launches.environ(file.parent), "PGPASSWORD": server.password or ""}
    try:
        if any("{options}" in word for word in command):
            write_atomic(options, login.encode())
        with file.open("rb") as given:
            done = subprocess.run(
                [tool, *(word.format(**facts) for word in command[1:])],
                env=variables, stdin=given, stdout=stdout, stderr=subprocess.PIPE, check=False,
            )  # fmt: skip
    finally:
        options.unlink(missing_ok=True)
    if done.returncode == 0:
        return None
    return done.stderr.decode(errors="replace").strip()[-MAX_MESSAGE_CHARS:] or "no message"


def _find(tool: str, program: str) -> str | None:
    """Return the path of a tool: of the same version as the server program, if it is beside it."""
    return shutil.which(tool, path=str(Path(program).resolve().parent)) or shutil.which(tool)
