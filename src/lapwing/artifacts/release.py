"""A release: the immutable build of one service, and the store that holds them.

A release is named by its content (`api-3f9a2c1b7d04`), so a service whose source, lock file and
build settings did not change keeps its release and is not built again. On disk it is a folder

    releases/<stack>/<service>/<release>/
        release.json        this record
        app/                the program (process) or the files to serve (static)

made under another name and renamed when it is whole: a folder with a release.json is complete.
Dependencies live in layers/<key>/, shared by all releases with the same lock file; a release names
the layers it needs, and retention never removes one that is named.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from lapwing.errors import ReleaseMissingError


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one release. `path` and `environment` are put before the process's PATH
    and environment when it runs; in both, `{app}` and `{layer}` are not used: they are absolute."""

    name: str
    stack: str
    service: str
    kind: Literal["process", "static"]
    revision: str
    """The git revision it was first built from, with `-dirty` for uncommitted changes."""
    built: float
    """Unix time."""
    path: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    layers: tuple[str, ...] = ()
    size: int = 0


class ReleaseStore:
    """Read access to the releases under `root`. The agent has no more than this."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, stack: str, service: str, release: str) -> Path:
        """Where a release is, or would be."""
        return self.root / stack / service / release

    def get(self, stack: str, service: str, release: str) -> Release:
        """The record of a release. Raises ReleaseMissingError if it is not there or damaged."""
        path = self.folder(stack, service, release) / "release.json"
        try:
            return msgspec.json.decode(path.read_bytes(), type=Release)
        except (OSError, msgspec.MsgspecError) as error:
            raise ReleaseMissingError(
                f"Release {release} of {service} is not on this machine.",
                hint="Deploy again from its revision, or choose one that `lapwing history` lists.",
            ) from error

    def has(self, stack: str, service: str, release: str) -> bool:
        """Whether a whole release is there."""
        return (self.folder(stack, service, release) / "release.json").is_file()

    def list(self, stack: str, service: str) -> list[Release]:
        """All whole releases of a service, newest first."""
        folder = self.root / stack / service
        names = [p.parent.name for p in folder.glob("*/release.json")]
        return sorted((self.get(stack, service, n) for n in names), key=lambda r: -r.built)
