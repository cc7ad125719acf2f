"""Folders that are made once and never change: releases, and the layers below them.

A layer is a set of installed dependencies named by its lock file, shared by every release with the
same lock, so a change of code copies files and installs nothing. A folder is made under another
name, by the holder of a kernel lock, synced, and renamed when it is whole. So a name that does not
begin with a dot is complete; an interrupted build leaves only a `.tmp-` folder, an interrupted
removal a `.trash-` one; and no lock has to be removed by hand.

Everything in a made folder is read-only. A release holds a copy of its layer (`clone`): a build or
a replica that writes to its dependencies changes no other release, also as root, for whom modes
mean nothing.

A process that uses an existing folder renews its time (`renew`), under the same lock.
Retention looks at that time, so it does not remove what a deployment has just chosen.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from lapwing.system import locks
from lapwing.system.files import remove_tree, sync_folder, sync_tree

FORMAT = 2
"""Part of the names of layers: raise it when the same lock file would make another layer."""
MAX_SYNCED_FILES = 16
"""Up to this number of files, each is synced alone; above it, sync() is called."""
TEMPORARY = ".tmp-"
TRASH = ".trash-"
LOCKS = ".locks"


def make(target: Path, fill: Callable[[Path], None]) -> bool:
    """Have `target`, made by `fill` in an empty folder; False if it was there already.

    Two makers at once: the second waits and finds it made. What `fill` raises is raised, and
    nothing is left. Raises OSError.
    """
    if renew(target):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with lock(target):
        if target.is_dir():
            return False
        for old in target.parent.glob(f"{TEMPORARY}{target.name}-*"):
            remove_tree(old)  # We hold the lock, so its builder has ended.
        folder = Path(tempfile.mkdtemp(dir=target.parent, prefix=f"{TEMPORARY}{target.name}-"))
        try:
            fill(folder)
            folder.chmod(0o755)
            protect(folder)
            _sync(folder)  # First: after a power cut, an existing name is always a complete layer.
            folder.rename(target)
            sync_folder(target.parent)
        finally:
            remove_tree(folder)
    return True


def _sync(folder: Path) -> None:
    """Sync a folder to disk; many files are faster with one sync()."""
    if sum(1 for _ in folder.rglob("*")) > MAX_SYNCED_FILES:
        os.sync()
    else:
        sync_tree(folder)


def renew(target: Path) -> bool:
    """Mark a folder as in use; return False if it does not exist."""
    if not target.is_dir():
        return False
    with lock(target):
        try:
            os.utime(target)
        except FileNotFoundError:
            return False
    return True


def discard(target: Path) -> None:
    """Remove a finished folder: first its name, then its content. The caller holds its lock."""
    trash = target.parent / f"{TRASH}{target.name}-{os.getpid()}-{os.urandom(4).hex()}"
    with contextlib.suppress(FileNotFoundError):
        target.rename(trash)
        remove_tree(trash)


def sweep(folder: Path) -> None:
    """Remove what interrupted builds and removals left in a folder of folders."""
    for old in folder.glob(f"{TRASH}*"):
        remove_tree(old)
    for old in folder.glob(f"{TEMPORARY}*"):
        with contextlib.suppress(BlockingIOError), lock(made_for(old), wait=False):
            remove_tree(old)
    for left in folder.glob(f"{LOCKS}/*"):
        if not (folder / left.name).exists():
            with contextlib.suppress(BlockingIOError), lock(folder / left.name, wait=False):
                left.unlink()


def made_for(folder: Path) -> Path:
    """What a temporary folder will be called once it is whole."""
    name = folder.name.removeprefix(TEMPORARY).rsplit("-", 1)[0]
    return folder.parent / name


def protect(folder: Path) -> None:
    """Make a folder and everything in it read-only."""
    for path in (folder, *folder.rglob("*")):
        mode = path.lstat().st_mode
        if mode & 0o222 and not stat.S_ISLNK(mode):
            path.chmod(stat.S_IMODE(mode) & ~0o222)


def clone(source: Path, target: Path, *, writable: bool) -> None:
    """Copy a tree of a layer to `target`, so that writes to the copy never reach the layer.

    The folders of the copy are writable. Its files share their blocks with the layer's where the
    file system can do that (Btrfs, XFS). Unless they are to be `writable`, they are hard links
    where the kernel refuses writes to read-only files: everywhere but as root. Raises OSError.
    """
    target.mkdir()
    with os.scandir(source) as entries:
        for entry in entries:
            copied = target / entry.name
            if entry.is_symlink():
                copied.symlink_to(Path(entry.path).readlink())
            elif entry.is_dir():
                clone(Path(entry.path), copied, writable=writable)
            elif writable or os.geteuid() == 0 or not _linked(entry.path, copied):
                _copy_file(Path(entry.path), copied)


def _linked(source: str, target: Path) -> bool:
    """Whether a hard link could be made: not beyond a file system or its most links of a file."""
    with contextlib.suppress(OSError):
        target.hardlink_to(source)
        return True
    return False


def _copy_file(source: Path, target: Path) -> None:
    """Copy a file with its times, so that compiled Python fits its source; the owner may write."""
    with source.open("rb") as original, target.open("xb") as copied:
        about = os.fstat(original.fileno())
        try:
            while os.copy_file_range(original.fileno(), copied.fileno(), 2**30):
                pass
        except (AttributeError, OSError):  # Not on macOS, and not on every file system.
            shutil.copyfileobj(original, copied)
        copied.flush()
        os.fchmod(copied.fileno(), stat.S_IMODE(about.st_mode) | 0o200)
        os.utime(copied.fileno(), ns=(about.st_atime_ns, about.st_mtime_ns))


def lock(target: Path, *, wait: bool = True) -> AbstractContextManager[None]:
    """Hold the kernel's lock of a folder, which ends with its holder.

    Raises BlockingIOError if another process holds it and `wait` is false.
    """
    return locks.hold(target.parent / LOCKS / target.name, wait=wait)
