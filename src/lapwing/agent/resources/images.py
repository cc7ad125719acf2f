"""How the official image of each kind of database is run as a container on a machine.

Passwords are in files, which the entrypoints of the images read (`*_FILE`), and Redis in its
configuration, so neither `docker inspect` nor a process list shows one. Settings are derived from
the memory of the container. The entrypoints create the user and the database in new data only.

Sources: docker-entrypoint.sh in docker-library/mysql, postgres, mongo and redis; the documentation
of the servers' settings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from lapwing.agent import volumes
from lapwing.agent.container_request import network_name
from lapwing.agent.processes import MARK, ContainerOptions, Launch, Owner
from lapwing.agent.resources.kinds import MONGO_PROBE, MYSQL_PROBE, POSTGRES_PROBE, USER, Probe
from lapwing.errors import ResourceError
from lapwing.plan.model import Resource, ResourceContainer, ResourceKind
from lapwing.plan.server_images import IMAGES
from lapwing.settings import Settings
from lapwing.stack.resource_reference import PORTS
from lapwing.system.files import write_atomic

SECRETS = "/run/secrets"
"""The folder of passwords and configuration in a container."""
RECORD = "container.json"
"""The container that last ran with the data, recorded beside it."""
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Server:
    """How an image is run.

    `arguments(memory)` is its command, `environ` are variables and `files` are files in SECRETS,
    in which `{user}`, `{password}`, `{root_password}`, `{database}`, `{secrets}` and `{memory}`
    (that a cache may use) are replaced. `url` is that of its clients, also with `{address}`.
    """

    arguments: Callable[[int], tuple[str, ...]]
    files: Mapping[str, str]
    url: str
    probe: Probe
    environ: Mapping[str, str] = field(default_factory=dict)


def _mysql(memory: int) -> tuple[str, ...]:
    """Half of the memory for the buffer pool; one connection for each 8 MiB of memory."""
    pool, connections = memory // 2, max(20, memory // (8 * _MIB))
    sizes = (f"--innodb-buffer-pool-size={pool}", f"--max-connections={connections}")
    # Without a name server, each connection would wait until the search for a name has timed out.
    # ALTER TABLE sorts a whole table in files, which have to fit: on the disk, not in /tmp.
    return ("mysqld", *sizes, "--skip-name-resolve", f"--tmpdir={IMAGES['mysql'].sorting}")


def _postgres(memory: int) -> tuple[str, ...]:
    """A quarter of the memory for shared buffers (PostgreSQL's manual), half for cached files."""
    settings = {
        "shared_buffers": f"{memory // 4 // _MIB}MB",
        "effective_cache_size": f"{memory // 2 // _MIB}MB",
        "max_connections": str(max(20, memory // (5 * _MIB))),
    }
    return ("postgres", *(word for k, v in settings.items() for word in ("-c", f"{k}={v}")))


def _mongod(memory: int) -> tuple[str, ...]:
    """Half of the memory above 1 GiB for the cache, MongoDB's default; at least 0.25 GB."""
    cache = max(0.25, round((memory / 2**30 - 1) / 2, 2))
    return ("mongod", "--wiredTigerCacheSizeGB", str(cache))


def _redis(_: int) -> tuple[str, ...]:
    return ("redis-server", f"{SECRETS}/redis.conf")


# Source: redis.conf. Writing the append-only file again may take as much memory as changes
# meanwhile, so a quarter is left. A process title would overwrite the variables of the process.
_REDIS = """\
requirepass {password}
dir /data
appendonly yes
maxmemory {memory}
maxmemory-policy noeviction
set-proc-title no
"""
SERVERS: dict[ResourceKind, Server] = {
    "mysql": Server(
        arguments=_mysql,
        environ={
            "MYSQL_DATABASE": "{database}",
            "MYSQL_USER": "{user}",
            "MYSQL_PASSWORD_FILE": "{secrets}/password",
            "MYSQL_ROOT_PASSWORD_FILE": "{secrets}/root-password",
        },
        files={"password": "{password}", "root-password": "{root_password}"},
        url="mysql://{user}:{password}@{address}/{database}",
        probe=MYSQL_PROBE,
    ),
    "postgres": Server(
        arguments=_postgres,
        environ={
            "POSTGRES_USER": "{user}",
            "POSTGRES_DB": "{database}",
            "POSTGRES_PASSWORD_FILE": "{secrets}/password",
            "PGDATA": "/var/lib/postgresql/data/pgdata",
        },
        files={"password": "{password}"},
        url="postgres://{user}:{password}@{address}/{database}",
        probe=POSTGRES_PROBE,
    ),
    "mongodb": Server(
        arguments=_mongod,
        environ={
            "MONGO_INITDB_ROOT_USERNAME": "{user}",
            "MONGO_INITDB_ROOT_PASSWORD_FILE": "{secrets}/password",
            "MONGO_INITDB_DATABASE": "{database}",
            "HOME": "/home/mongodb",
        },
        files={"password": "{password}"},
        url="mongodb://{user}:{password}@{address}/{database}?authSource=admin",
        probe=MONGO_PROBE,
    ),
    "redis": Server(
        arguments=_redis,
        files={"redis.conf": _REDIS},
        url="redis://:{password}@{address}",
        probe=Probe(b"AUTH {password}\r\nPING\r\n", b"+PONG"),
    ),
}


def address(owner: Owner, resource: Resource) -> str:
    """Return the address of a resource in the network of its environment."""
    return f"{owner.service}:{PORTS[resource.kind]}"


def prepare(
    settings: Settings,
    owner: Owner,
    resource: Resource,
    folder: Path,
    facts: Mapping[str, str],
    *,
    port: int,
) -> Launch:
    """Build the launch of a server; create its folders and files in `folder`.

    If the agent runs as root, the user of the image owns them; otherwise, the agent's user does.
    `facts` are the passwords and the database, `port` is the published one. Raises OSError.
    """
    container = resource.container
    assert isinstance(container, ResourceContainer)
    server, official = SERVERS[resource.kind], IMAGES[resource.kind]
    user = official.user if os.geteuid() == 0 else os.getuid()
    usable = str(container.memory // 4 * 3)
    filled = {"user": USER, "secrets": SECRETS, "memory": usable, **facts}
    files = {}
    for name, text in server.files.items():
        files[f"{SECRETS}/{name}"] = folder / "secrets" / name
        write_atomic(folder / "secrets" / name, text.format(**filled).encode())
    data = folder / "data"
    folders = [data]
    if official.sorting is not None:
        folders.append(data / Path(official.sorting).relative_to(official.data))
    for place in folders:
        place.mkdir(mode=0o700, exist_ok=True)
    for place in (*folders, *files.values()):
        volumes.change_owner(place, user, owner.service)
    environ = {name: text.format(**filled) for name, text in server.environ.items()}
    environ[MARK] = f"{settings.home}|{owner}"
    options = ContainerOptions(
        image=container.digest or container.image,
        user=user,
        port=PORTS[resource.kind],
        published=port,
        memory=container.memory,
        volumes={official.data: data},
        network=network_name(settings, owner.stack, owner.environment),
        alias=owner.service,
        files=files,
        temporary=official.scratch,
        keep_entrypoint=True,
    )
    return Launch(server.arguments(container.memory), environ, folder, options)


def recorded(folder: Path) -> ResourceContainer | None:
    """Return the container that last ran with the data in a resource's folder, if one did.

    Raises ResourceError if the record is damaged: another server could damage the data.
    """
    path = folder / RECORD
    try:
        return msgspec.json.decode(path.read_bytes(), type=ResourceContainer)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise ResourceError(
            f"{path}, the record of the image that created this data, cannot be read.",
            hint='Write it with the image of this data: {"image": "redis:7", "memory": 268435456}.',
        ) from error


def record(folder: Path, container: ResourceContainer) -> None:
    """Record the container of the data in a resource's folder. Raises OSError."""
    write_atomic(folder / RECORD, msgspec.json.encode(container))


def has_data(folder: Path) -> bool:
    """Return whether a resource's folder has data of a server or of the application."""
    try:
        return any(folder.iterdir())
    except OSError:
        return False
