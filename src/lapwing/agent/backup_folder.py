"""The interface of a backup store, and the store in a folder.

    <id>/manifest.json   what a backup contains; without it, there is no backup
         <part>.tar.gz   <part>.tar.gz.age if the backup is encrypted

A backup in a folder has a hidden name while it is written and while it is removed.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from lapwing.errors import BackupError
from lapwing.system import files

MANIFEST = "manifest.json"
ID = re.compile(r"\d{8}T\d{6}Z")
_FOLDER = ".backup-folder"
"""The file with the name of the folder that contains the backups."""
_REMOVED = ".removed"
"""The suffix of the hidden name of a backup while it is removed."""


class Store(Protocol):
    """A store of the backups of one environment. Methods raise BackupError or OSError."""

    place: str
    """The address of the store, for messages."""
    work: Path
    """The folder on this machine in which a new backup is written."""

    def prepare(self) -> None:
        """Prepare for a new backup."""

    def ids(self) -> list[str]:
        """Return the IDs of the complete backups, newest first."""

    def read_manifest(self, backup: str) -> bytes:
        """Return the manifest of a backup."""

    def fetch(self, backup: str, file: str, scratch: Path) -> Path:
        """Return the path of a part of a backup, which may be copied to `scratch`."""

    def add(self, backup: str, file: Path) -> None:
        """Store a part that was written in `work`."""

    def complete(self, backup: str, folder: Path) -> None:
        """Complete a backup, whose manifest is in `folder`."""

    def remove(self, backup: str) -> None:
        """Remove a backup, also an incomplete one."""


class FolderStore:
    """Backups in a folder, which may be on a file system that is not always mounted."""

    def __init__(self, top: Path, folder: Path, data: Path, *, default: bool) -> None:
        self.place = str(folder)
        self.work = folder
        self._top = top
        self._known = data / _FOLDER
        self._default = default

    def prepare(self) -> None:
        """Create the folder, but not in place of a file system that is not mounted."""
        folder = self.work
        missing = self._missing
        if missing is None and not self._default and not folder.exists():
            missing = None if self._top.parent.exists() else self._top.parent
        if missing is not None:
            raise BackupError(
                f"{missing} does not exist, so the backup was not written to {self._top}.",
                hint=_mount_hint(missing),
            )
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), self.place)
            files.write_atomic(self._known, self.place.encode())
        except OSError as error:
            raise BackupError(
                f"The folder for backups {folder} cannot be used: {error.strerror or error} "
                f"({error.filename or self._known}).",
                hint="Correct `to` of `backup`, or the owner and the mode of the folder.",
            ) from error

    def ids(self) -> list[str]:
        """Return the IDs of the complete backups, newest first."""
        if (missing := self._missing) is not None:
            raise BackupError(
                f"The folder for backups {missing} does not exist.", hint=_mount_hint(missing)
            )
        names = (p.name for p in self.work.iterdir()) if self.work.is_dir() else ()
        return sorted((n for n in names if ID.fullmatch(n)), reverse=True)

    def read_manifest(self, backup: str) -> bytes:
        """Return the manifest of a backup."""
        return (self.work / backup / MANIFEST).read_bytes()

    def fetch(self, backup: str, file: str, scratch: Path) -> Path:
        """Return the path of a part of a backup."""
        return self.work / backup / file

    def add(self, backup: str, file: Path) -> None:
        """Do nothing: the part is in the folder."""

    def complete(self, backup: str, folder: Path) -> None:
        """Rename the folder of a complete backup."""
        folder.rename(self.work / backup)
        files.sync_folder(self.work)

    def remove(self, backup: str) -> None:
        """Remove a backup, and those that an earlier call could not remove. Raises BackupError."""
        with suppress(FileNotFoundError):
            (self.work / backup).rename(self.work / f".{backup}{_REMOVED}")
        removed = sorted(self.work.glob(f".*{_REMOVED}"))
        for each in removed:
            files.remove_tree(each)
        if left := [str(each) for each in removed if each.exists()]:
            raise BackupError(
                f"{', '.join(left)} could not be removed.", hint="Check its permissions and mounts."
            )

    @property
    def _missing(self) -> Path | None:
        """The folder, if it contained backups and does not exist any more."""
        if self._default or self.work.exists() or not self._known.exists():
            return None
        return self.work if self._known.read_text() == self.place else None


def _mount_hint(missing: Path) -> str:
    return f"Mount its file system, or run `mkdir -p {shlex.quote(str(missing))}`."
