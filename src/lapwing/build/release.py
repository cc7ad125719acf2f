"""A release: the immutable build of one service, and the store that holds them.

A release is named by its content (`api-3f9a2c1b7d04`), so a service whose source, lock file and
build settings did not change keeps its release and is not built again. On disk it is a folder

    releases/<stack>/<service>/<release>/
        release.json        this record
        app/                the program (process) or the files to serve (static)
        volumes/            what the source has at the paths of volumes, which are links in app/
        venv/               its virtual environment (Python)

made under another name and renamed when it is whole: a folder with a release.json is complete.
Dependencies are installed once for each lock file, in layers/<key>/, and every process release has
a copy of them. A release names the layers it was built with, and retention never removes one
that is named by a process release, or by the newest static one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from lapwing.errors import ReleaseMissingError

INITIAL = "volumes"
"""The folder of a release with the first content of its volumes."""
RECORD = "release.json"
VENV = "venv"
"""The folder of a Python release's virtual environment."""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """The record of one release.

    A process of it has `path` before its PATH and `environment` in its environment; the paths in
    both are absolute.
    """

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


def has_python(venv: Path) -> bool:
    """Whether the Python of a virtual environment still exists; True if there is no environment."""
    python = venv / "bin" / "python"
    return python.exists() or not python.is_symlink()


class ReleaseStore:
    """Read access to the releases under `root`. The agent has no more than this."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, stack: str, service: str, release: str) -> Path:
        """Where a release is, or would be."""
        return self.root / stack / service / release

    def get(self, stack: str, service: str, release: str) -> Release:
        """The record of a release. Raises ReleaseMissingError if it is not there or damaged."""
        found = self.find(stack, service, release)
        if found is None:
            raise ReleaseMissingError(
                f"Release {release} of {service} is not on this machine.",
                hint="Deploy again from its revision, or choose one that `lapwing history` lists.",
            )
        return found

    def find(self, stack: str, service: str, release: str) -> Release | None:
        """The record of a release; None if it is not there or damaged."""
        path = self.folder(stack, service, release) / RECORD
        try:
            return msgspec.json.decode(path.read_bytes(), type=Release)
        except (OSError, msgspec.MsgspecError):
            return None

    def has(self, stack: str, service: str, release: str) -> bool:
        """Whether a whole release is there."""
        return (self.folder(stack, service, release) / RECORD).is_file()

    def names(self, stack: str, service: str) -> list[str]:
        """The folders of a service's releases, also damaged ones; none that is being made."""
        folder = self.root / stack / service
        if not folder.is_dir():
            return []
        return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and p.is_dir())

    def services(self) -> list[tuple[str, str]]:
        """Every stack and service that has had a release."""
        folders = (p for p in self.root.glob("*/*") if p.is_dir())
        found = ((p.parent.name, p.name) for p in folders)
        return sorted(pair for pair in found if not any(name.startswith(".") for name in pair))

    def list(self, stack: str, service: str) -> list[Release]:
        """All whole releases of a service, newest first."""
        found = (self.find(stack, service, name) for name in self.names(stack, service))
        return sorted((r for r in found if r is not None), key=lambda r: -r.built)
