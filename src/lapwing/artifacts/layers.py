"""Folders that are made once and never change: releases, and the layers below them.

A layer is a set of installed dependencies named by its lock file, shared by every release with the
same lock, so a change of code copies files and installs nothing. A folder is made under another
name, by the holder of a kernel lock, and renamed when it is whole: a name without `.tmp-` is
complete, an interrupted build leaves only `.tmp-` folders, and nobody has to clear a lock by hand.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from lapwing.artifacts.run import full
from lapwing.errors import NoSpaceError

TEMPORARY = ".tmp-"


def make(target: Path, fill: Callable[[Path], None]) -> bool:
    """Have `target`, made by `fill` in an empty folder; False if it was there already.

    Two makers at once: the second waits and finds it made. What `fill` raises is raised, and
    nothing is left. Raises NoSpaceError when the disk is full.
    """
    if target.is_dir():
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target):
        if target.is_dir():
            return False
        for old in target.parent.glob(f"{TEMPORARY}{target.name}-*"):
            remove(old)  # We hold the lock, so whoever made it is gone.
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{TEMPORARY}{target.name}-"))
        try:
            fill(folder)
            folder.chmod(0o755)
            folder.rename(target)
            _sync(target.parent)
        except OSError as error:
            if full(error):
                raise NoSpaceError(
                    f"The disk is full; {target.name} was not made.",
                    hint="Free some space and try again.",
                ) from error
            raise
        finally:
            remove(folder)
    return True


def remove(folder: Path) -> None:
    """Remove a folder with all that is in it, also what is write-protected."""
    if not folder.exists():
        return

    def unlock(function: Callable[[str], object], name: str, _error: object) -> None:
        with contextlib.suppress(OSError):
            Path(name).parent.chmod(0o755)
            Path(name).chmod(0o755)
            function(name)

    shutil.rmtree(folder, onerror=unlock)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[None]:
    locks = target.parent / ".locks"
    locks.mkdir(exist_ok=True)
    descriptor = os.open(locks / target.name, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
