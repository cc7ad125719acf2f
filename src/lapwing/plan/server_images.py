"""The official images of databases, as clusters and machines run them.

The tags are those of the publishers, dated below. A machine pins the image of a database when its
first deployment pulls it (`ResourceContainer.digest`), so that it never changes silently.

Sources: hub.docker.com/_/mysql, _/redis, _/mongo, _/postgres, and the entrypoints in the
repositories of docker-library.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapwing.plan.model import ResourceKind

DATE = "2026-11-28"
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class ServerImage:
    """The official image of a kind of database.

    `user` is its numeric user, `data` the folder of its data, `scratch` the other folders that it
    writes to, `memory` what it gets by default. `sorting` is a folder in `data` for large temporary
    files, if the server would otherwise write them to /tmp. Its name begins with a dot, so that
    the server can still initialize `data`.
    """

    name: str
    tag: str
    user: int
    data: str
    scratch: tuple[str, ...]
    memory: int
    sorting: str | None = None


IMAGES: dict[ResourceKind, ServerImage] = {
    "mysql": ServerImage(
        name="mysql",
        tag="8.4",
        user=999,
        data="/var/lib/mysql",
        scratch=("/tmp", "/var/run/mysqld"),  # noqa: S108
        memory=1024 * _MIB,
        sorting="/var/lib/mysql/.tmp",
    ),
    "redis": ServerImage(
        name="redis",
        tag="7",
        user=999,
        data="/data",
        scratch=("/tmp",),  # noqa: S108
        memory=256 * _MIB,
    ),
    "mongodb": ServerImage(
        name="mongo",
        tag="8",
        user=999,
        data="/data/db",
        scratch=("/tmp", "/data/configdb", "/home/mongodb"),  # noqa: S108
        memory=1024 * _MIB,
    ),
    "postgres": ServerImage(
        name="postgres",
        tag="17",
        user=999,
        data="/var/lib/postgresql/data",
        scratch=("/tmp", "/var/run/postgresql"),  # noqa: S108
        memory=512 * _MIB,
    ),
}


def reference(kind: ResourceKind, image: str | None, version: str | None) -> str:
    """Return the image of a resource: what the stack file states, else the official one."""
    official = IMAGES[kind]
    return image or f"{official.name}:{version or official.tag}"
