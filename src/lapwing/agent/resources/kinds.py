"""The server programs for each kind of resource: how each is started and checked.

What is the same for all of them (ports, folders, adoption, waiting) is in `servers.py`. Every
server listens on 127.0.0.1 only, where every user of the machine can connect: so it requires a
password, if it can read one from a file or its environment (process lists show arguments).
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lapwing.plan.model import ResourceKind

USER = "lapwing"
"""The user of a database that has one."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A readiness check of a server: its response to `sent` contains `expected`.

    `{password}` in `sent` is replaced.
    """

    sent: bytes
    expected: bytes


@dataclass(frozen=True, slots=True)
class Login:
    """How a server receives the password of its only user.

    `configuration` is the content of a file: its path is the first argument of the server, or the
    last one, after `option`. `environ` are variables, `greeting` is what a client sends first.
    `{password}` and `{database}` are replaced. All are empty if the password is set at creation.
    """

    user: str = ""
    configuration: str | None = None
    option: str = ""
    environ: Mapping[str, str] = field(default_factory=dict)
    greeting: str = ""


@dataclass(frozen=True, slots=True)
class Creation:
    """A command that creates the data of a server, with its standard input.

    In both, `{data}`, `{database}` and `{password_file}` are replaced.
    """

    arguments: tuple[str, ...]
    given: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """A server program.

    `arguments(program, data, port)` starts it; `scheme` begins its URL. `login` is how it receives
    a password; None if it has none. `creation(program, database)` are the commands that create its
    data, if it does not create them when it starts. With `stop_signal` it ends its connections.
    """

    names: tuple[str, ...]
    arguments: Callable[[str, Path, int], tuple[str, ...]]
    scheme: str
    probe: Probe
    login: Login | None = None
    creation: Callable[[str, str], tuple[Creation, ...]] = lambda _program, _database: ()
    stop_signal: signal.Signals = signal.SIGTERM


def _mongod(program: str, data: Path, port: int) -> tuple[str, ...]:
    network = ("--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket")
    return (program, "--dbpath", str(data), *network)


def _ferretdb(program: str, data: Path, port: int) -> tuple[str, ...]:
    # Source: FerretDB 1.24, `ferretdb --help`.
    storage = ("--handler=sqlite", f"--sqlite-url=file:{data}/", f"--state-dir={data}")
    quiet = ("--telemetry=disable", "--debug-addr=-", "--log-level=warn")
    return (program, *storage, f"--listen-addr=127.0.0.1:{port}", *quiet)


def _redis(program: str, data: Path, port: int) -> tuple[str, ...]:
    network = ("--port", str(port), "--bind", "127.0.0.1")
    storage = ("--dir", str(data), "--appendonly", "yes")
    # A process title would overwrite the environment, by which Lapwing identifies processes.
    # Source: redis.conf, set-proc-title.
    return (program, *network, *storage, "--set-proc-title", "no")


def _mysqld(program: str, data: Path, port: int) -> tuple[str, ...]:
    # A longer path of a socket than 107 characters is refused, so it is relative to the data.
    network = (f"--port={port}", "--bind-address=127.0.0.1", "--mysqlx=OFF", "--socket=mysql.sock")
    return (*_mysqld_start(program, str(data)), *network, "--skip-name-resolve")


def _mysqld_start(program: str, data: str) -> tuple[str, ...]:
    # Source: MySQL Reference Manual 8.4, How to Run MySQL as a Normal User.
    root = ("--user=root",) if os.geteuid() == 0 else ()
    # A binary log grows, and only an administrator may create functions with one.
    return (program, "--no-defaults", f"--datadir={data}", "--disable-log-bin", *root)


def _mysql_creation(program: str, _: str) -> tuple[Creation, ...]:
    return (Creation((*_mysqld_start(program, "{data}"), "--initialize-insecure")),)


def _postgres(program: str, data: Path, port: int) -> tuple[str, ...]:
    network = ("-h", "127.0.0.1", "-p", str(port), "-k", "")
    return (program, "-D", str(data), *network)


def _postgres_creation(program: str, database: str) -> tuple[Creation, ...]:
    """Create the data by the `initdb` of the same version, and the database by a single process.

    Source: PostgreSQL documentation, initdb; postgres, Options for Single-User Mode.
    """
    initdb = str(Path(program).resolve().with_name("initdb"))
    login = ("-U", USER, "--auth=scram-sha-256", "--pwfile={password_file}")
    default = "postgres"
    alone = (program, "--single", "-D", "{data}", "-c", "exit_on_error=on", default)
    return (
        Creation((initdb, "-D", "{data}", *login, "--encoding=UTF8", "--locale=C")),
        *([Creation(alone, 'CREATE DATABASE "{database}"\n')] if database != default else []),
    )


def _mongodb_hello() -> bytes:
    """Return an OP_MSG with {hello: 1, $db: "admin"}.

    Source: MongoDB wire protocol, OP_MSG; BSON specification.
    """
    body = b"\x10hello\x00\x01\x00\x00\x00" + b"\x02$db\x00\x06\x00\x00\x00admin\x00" + b"\x00"
    document = (len(body) + 4).to_bytes(4, "little") + body
    message = b"\x00\x00\x00\x00" + b"\x00" + document
    size = (len(message) + 16).to_bytes(4, "little")
    return size + b"\x01\x00\x00\x00" + b"\x00\x00\x00\x00" + b"\xdd\x07\x00\x00" + message


def _postgres_login() -> bytes:
    """Return a StartupMessage; a server that is ready asks for the password.

    Source: PostgreSQL documentation, Message Formats.
    """
    body = (196608).to_bytes(4, "big") + f"user\0{USER}\0\0".encode()
    return (len(body) + 4).to_bytes(4, "big") + body


MONGO_PROBE = Probe(_mongodb_hello(), b"maxWireVersion")
POSTGRES_PROBE = Probe(_postgres_login(), b"SCRAM-SHA-256")
# The greeting of the server: the end of a length below 65536, number 0, protocol 10.
MYSQL_PROBE = Probe(b"", b"\x00\x00\x0a")
REDIS_PROBE = Probe(b"PING\r\n", b"+PONG")
REDIS_LOGIN = Login(configuration="requirepass {password}\n", greeting="AUTH {password}\r\n")
# Statements that the server executes before it accepts connections, at each start.
# Source: MySQL Reference Manual 8.4, init_file: one statement per line.
MYSQL_LOGIN = Login(
    user=USER,
    configuration="""\
CREATE DATABASE IF NOT EXISTS `{database}`;
CREATE USER IF NOT EXISTS lapwing@'%' IDENTIFIED BY '{password}';
GRANT ALL ON `{database}`.* TO lapwing@'%';
ALTER USER root@localhost IDENTIFIED BY '{password}';
""",
    option="--init-file=",
)
# Source: FerretDB 1.24, `ferretdb --help`. The user is added to new data only.
FERRETDB_LOGIN = Login(
    user=USER,
    environ={
        "FERRETDB_TEST_ENABLE_NEW_AUTH": "true",
        "FERRETDB_SETUP_USERNAME": USER,
        "FERRETDB_SETUP_PASSWORD": "{password}",
        "FERRETDB_SETUP_DATABASE": "{database}",
    },
)
PROGRAMS: dict[ResourceKind, tuple[Program, ...]] = {
    "mongodb": (
        Program(("mongod",), _mongod, "mongodb", MONGO_PROBE),
        Program(("ferretdb",), _ferretdb, "mongodb", MONGO_PROBE, FERRETDB_LOGIN),
    ),
    "redis": (
        Program(("valkey-server", "redis-server"), _redis, "redis", REDIS_PROBE, REDIS_LOGIN),
    ),
    "mysql": (Program(("mysqld",), _mysqld, "mysql", MYSQL_PROBE, MYSQL_LOGIN, _mysql_creation),),
    "postgres": (
        Program(
            ("postgres",),
            _postgres,
            "postgres",
            POSTGRES_PROBE,
            Login(USER),
            _postgres_creation,
            signal.SIGINT,
        ),
    ),
}
"""The supported programs, in order of preference. MariaDB is not supported."""

HOW_TO_GET = {
    "mongodb": "Install Docker, mongod or FerretDB",
    "redis": "Install Docker, redis-server or valkey-server",
    "mysql": "Install Docker, or MySQL with its `mysqld` program on the PATH",
    "postgres": "Install Docker, or PostgreSQL with its `postgres` program on the PATH",
}


def of(kind: ResourceKind, program: str) -> Program:
    """Return a server program of a kind by its path. Raises KeyError if it is unsupported."""
    for found in PROGRAMS.get(kind, ()):
        if Path(program).name in found.names:
            return found
    raise KeyError(program)
