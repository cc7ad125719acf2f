"""Files that are replaced as a whole, and trees that are removed as a whole.

A file is written under a temporary name in its own folder, synced, renamed over the old one, and
the folder is synced. A reader therefore sees the old or the new content, never a mixture, and so
does the next boot after a power cut.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def write_atomic(path: Path, data: bytes, mode: int | None = 0o600, *, sync: bool = True) -> None:
    """Replace a file; its folder is created if it is missing.

    Without a `mode` the umask decides. Without `sync` the file may be lost or empty after a power
    cut, which suits what can be computed again.

    Raises:
        OSError: It cannot be written, for instance because the disk is full. The old file is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if mode is not None:
                os.fchmod(descriptor, mode)
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


def sync_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, so that a rename survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
