"""Files that are replaced as a whole, and trees that are removed as a whole.

A file is written under a temporary name in its own folder, synced, renamed over the old one, and
the folder is synced. A reader therefore sees the old or the new content, never a mixture, and so
does the next boot after a power cut.

A state folder can hold a reserve: files of zeros, which are removed one by one when the disk is
full, so that a rollback and `lapwing down` can still be committed and recorded. Files are small and
several, because the program that fills the disk takes the rest of what is freed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk."""
TEMPORARY = re.compile(r"\..+\.[0-9]+-[0-9a-f]{8}")
"""The names of temporary files; one stays where its writer was killed."""
RESERVE = "reserve"
RESERVE_FILES = 8
RESERVE_FILE_BYTES = 2**20
BINARY = getattr(os, "O_BINARY", 0)
"""Windows changes line ends of a file that is opened without it."""


def write_atomic(path: Path, data: bytes, mode: int | None = 0o600, *, sync: bool = True) -> None:
    """Replace a file; its folder is created if it is missing.

    Without a `mode` the umask decides. Without `sync` the file may be lost or empty after a power
    cut, which suits what can be computed again. With it, the reserve is used on a full disk.

    Raises:
        OSError: It cannot be written, for instance because the disk is full. The old file is kept.
    """
    while True:
        try:
            return _replace(path, data, mode, sync)
        except OSError as error:
            if error.errno not in FULL or not sync or not use_reserve(path):
                raise


def _replace(path: Path, data: bytes, mode: int | None, sync: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY
    descriptor = os.open(temporary, flags, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                temporary.chmod(mode)
            file.write(data)
            file.flush()
            if sync:
                os.fsync(descriptor)
        temporary.replace(path)
        if sync:
            sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def fill_reserve(home: Path) -> bool:
    """Complete the reserve of a state folder if there is plenty of space; return if it is complete.

    Raises OSError if the folder cannot be read.
    """
    folder = home / RESERVE
    missing = [f for i in range(RESERVE_FILES) if not (f := folder / str(i)).exists()]
    if missing and shutil.disk_usage(home).free > 4 * RESERVE_FILES * RESERVE_FILE_BYTES:
        folder.mkdir(exist_ok=True)
        for file in missing:
            _replace(file, bytes(RESERVE_FILE_BYTES), 0o600, sync=True)
        return True
    return not missing


def use_reserve(path: Path) -> bool:
    """Remove a file of the reserve in the state folder of `path`; return whether there was one."""
    for parent in path.parents:
        for file in (parent / RESERVE).glob("[0-9]"):
            with contextlib.suppress(OSError):
                file.unlink()
                return True
    return False


def real_path(path: Path) -> Path:
    """Return a path without symbolic links; a circular one is kept and is no error."""
    return Path(os.path.realpath(path))


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, so that a rename survives a power cut.

    Windows opens no folders, and writes names by itself.
    """
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Write a folder and everything in it to the disk. Raises OSError."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir() and not path.is_symlink():
            sync_folder(path)
    sync_folder(folder)


def remove_tree(folder: Path) -> None:
    """Remove a folder and everything in it, including write-protected files.

    Does nothing if the folder does not exist. What cannot be removed is left.
    """
    if not folder.exists():
        return

    def unlock(function: Callable[[str], object], name: str, _error: object) -> None:
        with contextlib.suppress(OSError):
            Path(name).parent.chmod(0o755)
            if not Path(name).is_symlink():
                Path(name).chmod(0o755)
            if function in (os.unlink, os.rmdir):
                function(name)
            else:
                shutil.rmtree(name, onerror=unlock)

    shutil.rmtree(folder, onerror=unlock)
