"""The manifest of a backup: its parts, with the SHA-256 of their archives."""

from __future__ import annotations

import msgspec

from lapwing import __version__
from lapwing.observed.status import LeftOut
from lapwing.system.sanitize import escape_name


def archive_name(part: str, *, encrypted: bool) -> str:
    """Return the name of the file of a part."""
    return f"{part}.tar.gz.age" if encrypted else f"{part}.tar.gz"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One resource or volume in a backup.

    `counts` are the rows of SQLite tables, by file; `damaged` are the SQLite files that were
    damaged when they were copied.
    """

    name: str
    kind: str
    bytes: int
    sha256: str
    program: str | None = None
    image: str | None = None
    login: str | None = None
    encrypted: bool = False
    counts: dict[str, int] = {}
    damaged: list[str] = []

    @property
    def file(self) -> str:
        """The name of its archive."""
        return archive_name(self.name, encrypted=self.encrypted)

    @property
    def damaged_files(self) -> list[LeftOut]:
        """The damaged SQLite files: there is no data to restore in a copy of one."""
        reason = "a damaged SQLite file: the backup contains it as it is"
        names = (escape_name(f"{self.name}/{file}") for file in self.damaged)
        return [LeftOut(name=name, reason=reason) for name in names]


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup contains. `created` is Unix time, `commit` the deployment that was running.

    `scheduled` is false for a backup made by hand.
    """

    format: int = 1
    id: str
    stack: str
    environment: str
    created: float
    commit: str | None
    scheduled: bool = False
    lapwing: str = __version__
    parts: list[Part]
    left_out: list[LeftOut] = []
