"""Restores of one environment on a machine: the steps that change its data.

`unpack` writes a part beside the present data, and `switch` exchanges the two folders by one
renameat2(2): a complete folder always exists, and the data from before the restore has its final
name at once. A restore is recorded before it changes anything, so that an interrupted restore is
reported and can be completed, and the data from before it is kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from lapwing.agent.backup_manifest import Manifest, Part
from lapwing.agent.backups import Backups, only_one
from lapwing.agent.resources import images
from lapwing.agent.scratch_folders import UNPACK, scratch_folder
from lapwing.errors import BackupError
from lapwing.system import age, archives, files, locks

_RESTORE, _RESTORE_LOCK = ".restore.json", ".restore.lock"
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


class Restoring(msgspec.Struct, frozen=True, kw_only=True):
    """A restore in progress.

    The deployment `commit` is stopped for the restore; None if nothing was running. `head` was the
    newest commit, and `inode` is that of the folder of the data before the restore. `restored` is
    `name` once the data was replaced.
    """

    name: str
    backup: str
    commit: str | None
    head: str | None
    inode: int | None = None
    restored: str | None = None

    @property
    def description(self) -> str:
        """What is restored, for the history."""
        return f"{self.name} from backup {self.backup}"


class Restores:
    """Restores the backups of one environment."""

    def __init__(self, backups: Backups) -> None:
        self.backups = backups
        self.data = backups.data

    def unpack(self, manifest: Manifest, part: Part, to: Path) -> None:
        """Check a part and unpack it into a new folder. Raises BackupError, OSError."""
        store, identity = self.backups.store, self.backups.identity
        with scratch_folder(self.data, UNPACK) as scratch:
            file = store.fetch(manifest.id, part.file, scratch)
            name = f"{store.place}/{manifest.id}/{part.file}"
            try:
                with file.open("rb") as stream:
                    digest = hashlib.file_digest(stream, "sha256").hexdigest()
            except OSError as error:
                raise BackupError(f"{name} cannot be read: {error.strerror or error}.") from error
            if digest != part.sha256:
                raise BackupError(f"{name} is damaged: its SHA-256 is not that of the manifest.")
            if part.encrypted:
                assert identity is not None  # `Backups.find` checked it.
                plain = scratch / "archive"
                age.decrypt(file, plain, identity)
                file = plain
            files.remove_tree(to)
            to.mkdir(mode=0o700, parents=True)
            with tarfile.open(file) as archive:
                archives.extract(archive, to)
            files.sync_tree(to)

    def switch(self, part: Part, restored: Path, restoring: Restoring) -> Restoring:
        """Replace the data of a part by restored data, and return its record. Raises OSError.

        The data from before this restore is kept; that from before earlier restores is removed.
        """
        present, before = self.data / part.name, self.before(part)
        if part.kind != "volume" and (port := present / "port").exists():
            shutil.copy2(port, restored / "port")
        if inode(before) == restoring.inode is not None:  # Killed after the exchange.
            _exchange(restored, present)
            files.remove_tree(restored)
        elif present.exists():
            files.remove_tree(before)
            restored.rename(before)
            _exchange(before, present)
        else:
            restored.rename(present)
        files.sync_folder(self.data)
        return msgspec.structs.replace(restoring, restored=part.name)

    def before(self, part: Part) -> Path:
        """Return the folder of the data from before the last restore of a part."""
        return self.data / f".{part.name}.before-restore"

    def unpacked(self, part: Part) -> Path:
        """Return the folder that a part is unpacked into before the switch."""
        return self.data / f".{part.name}.restored"

    def check_server(self, part: Part) -> None:
        """Check that a backup of a container is not restored to a program, nor the reverse.

        Raises BackupError.
        """
        present = self.data / part.name
        contained, now = part.image is not None, images.recorded(present) is not None
        if part.kind != "volume" and contained != now and present.exists():
            raise BackupError(
                f"{part.name} now runs {'in' if now else 'outside'} a container, but the backup is "
                f"of {part.image or part.program}.",
                hint="Unpack the backup, and load the data with the tools of the database.",
            )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the data for one restore. Raises BackupError if another one is in progress."""
        self.data.mkdir(parents=True, exist_ok=True)
        with only_one(self.data / _RESTORE_LOCK, "restore"):
            yield

    def record(self, restoring: Restoring) -> None:
        """Record a restore before the environment is stopped. Raises OSError."""
        files.write_atomic(self.data / _RESTORE, msgspec.json.encode(restoring))

    def remove_record(self) -> None:
        """Remove the record of a restore whose environment is running again."""
        (self.data / _RESTORE).unlink(missing_ok=True)


def recorded(data: Path) -> Restoring | None:
    """Return the recorded restore; None if no restore is in progress or interrupted."""
    try:
        return msgspec.json.decode((data / _RESTORE).read_bytes(), type=Restoring)
    except (OSError, msgspec.MsgspecError):
        return None


def in_progress(data: Path) -> Restoring | None:
    """Return the restore in progress that has begun to change an environment."""
    return recorded(data) if locks.is_held(data / _RESTORE_LOCK) else None


def inode(folder: Path) -> int | None:
    """Return the inode of a folder, which it keeps when it is renamed; None if it is missing."""
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return None


def _exchange(one: Path, other: Path) -> None:
    """Exchange two folders atomically. Raises OSError. Source: renameat2(2)."""
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if library.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(other))
