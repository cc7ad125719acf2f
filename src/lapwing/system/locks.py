"""Exclusive and shared file locks (`flock`), which the kernel releases when their holder dies.

A lock therefore never has to be cleared by hand, however its holder ended. The lock file itself
stays, and may be removed by its holder: a lock that was taken on a removed file is taken again on
the new one. The decision record "Locks and retries" says why this is not the
`filelock` package.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def acquire(path: Path, *, wait: bool = True, shared: bool = False) -> int:
    """Lock a file, which is created with its folder; returns the descriptor that holds the lock.

    The lock lasts until the descriptor is closed or the process ends. Child processes do not
    inherit it. Those who hold it as `shared` do not exclude each other, and must not remove the
    file.

    Raises:
        BlockingIOError: Another process holds the lock and `wait` is false.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor, shared=shared, wait=wait)
            if is_open_file(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # The file was removed between opening and locking it.


@contextlib.contextmanager
def hold(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a file for the length of a `with` block. Raises as `acquire` does."""
    descriptor = acquire(path, wait=wait)
    try:
        yield
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a process holds the lock of a file. Two that ask at once do not find each other."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        _lock(descriptor, shared=True, wait=False)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def is_open_file(path: Path, descriptor: int) -> bool:
    """Whether a path is still the file of a descriptor: it may have been removed or replaced."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _lock(descriptor: int, *, shared: bool, wait: bool) -> None:
    """Lock an open file. Raises BlockingIOError."""
    import fcntl  # Windows has no such module; a command that locks nothing runs there.

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
