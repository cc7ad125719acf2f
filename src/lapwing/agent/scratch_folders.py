"""Folders with unpacked, decrypted data while a backup is restored or verified.

A folder is locked while it is in use. One that a killed process left is removed before the next
restore, verification or backup.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from lapwing.system import files, locks

UNPACK, VERIFY = ".unpack.", ".verify."
_LOCK, _ALL = ".lock", ".scratch.lock"


@contextmanager
def scratch_folder(data: Path, prefix: str) -> Iterator[Path]:
    """Create a folder in `data`, which is removed at the end. Raises OSError."""
    with locks.hold(data / _ALL):
        _remove_left(data)
        made = TemporaryDirectory(dir=data, prefix=prefix)
        lock = locks.acquire(Path(made.name) / _LOCK)
    try:
        with made as folder:
            yield Path(folder)
    finally:
        os.close(lock)


def remove_left(data: Path) -> None:
    """Remove the folders in `data` that no process uses. Raises OSError."""
    with locks.hold(data / _ALL):
        _remove_left(data)


def _remove_left(data: Path) -> None:
    for folder in (*data.glob(f"{UNPACK}*"), *data.glob(f"{VERIFY}*")):
        if not locks.is_held(folder / _LOCK):
            files.remove_tree(folder)
