"""The server programs for each kind of resource: how each is started and checked.

What is the same for all of them (ports, folders, adoption, waiting) is in `servers.py`. Every
server listens on 127.0.0.1 only, where every user of the machine can connect: so it requires a
password, if it can read one from a file or its environment (process lists show arguments).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lapwing.plan.model import ResourceKind


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

    `configuration` is the text of a file that is its first argument, `environ` are variables, and
    `greeting` is what a client sends first. `{password}` and `{database}` in them are replaced.
    """

    user: str = ""
    configuration: str | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    greeting: str = ""


@dataclass(frozen=True, slots=True)
class Program:
    """A server program.

    `arguments(program, data, port)` starts it; `scheme` begins its URL. `login` is how it receives
    a password; None if it has none.
    """

    names: tuple[str, ...]
    arguments: Callable[[str, Path, int], tuple[str, ...]]
    scheme: str
    probe: Probe
    login: Login | None = None


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


def _mongodb_hello() -> bytes:
    """Return an OP_MSG with {hello: 1, $db: "admin"}.

    Source: MongoDB wire protocol, OP_MSG; BSON specification.
    """
    body = b"\x10hello\x00\x01\x00\x00\x00" + b"\x02$db\x00\x06\x00\x00\x00admin\x00" + b"\x00"
    document = (len(body) + 4).to_bytes(4, "little") + body
    message = b"\x00\x00\x00\x00" + b"\x00" + document
    size = (len(message) + 16).to_bytes(4, "little")
    return size + b"\x01\x00\x00\x00" + b"\x00\x00\x00\x00" + b"\xdd\x07\x00\x00" + message


MONGO_PROBE = Probe(_mongodb_hello(), b"maxWireVersion")
REDIS_PROBE = Probe(b"PING\r\n", b"+PONG")
REDIS_LOGIN = Login(configuration="requirepass {password}\n", greeting="AUTH {password}\r\n")
# Source: FerretDB 1.24, `ferretdb --help`. The user is added to new data only.
FERRETDB_LOGIN = Login(
    user="lapwing",
    environ={
        "FERRETDB_TEST_ENABLE_NEW_AUTH": "true",
        "FERRETDB_SETUP_USERNAME": "lapwing",
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
}
"""The supported programs, in order of preference. MySQL and PostgreSQL need a
container or a URL."""

HOW_TO_GET = {
    "mongodb": "Install Docker, mongod or FerretDB",
    "redis": "Install Docker, redis-server or valkey-server",
    "mysql": "Install Docker, start a MySQL server",
    "postgres": "Install Docker, start a PostgreSQL server",
}


def of(kind: ResourceKind, program: str) -> Program:
    """Return a server program of a kind by its path. Raises KeyError if it is unsupported."""
    for found in PROGRAMS.get(kind, ()):
        if Path(program).name in found.names:
            return found
    raise KeyError(program)
