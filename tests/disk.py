"""A disk that a test can fill: a small tmpfs, mounted by root."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path


class Disk:
    """A small disk that can be filled to the last byte."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        """Leave no byte free, at this moment."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def shrink(self, free: int) -> None:
        """Resize the disk so that `free` bytes are left."""
        found = os.statvfs(self.folder)
        self.resize(str((found.f_blocks - found.f_bfree) * found.f_frsize + free))

    def resize(self, size: str) -> None:
        """Resize the disk; `size` is as in the `size` option of tmpfs(5)."""
        options = ["-o", f"remount,size={size}", str(self.folder)]
        subprocess.run(["mount", *options], check=True)

    def free(self) -> None:
        """Free all that was filled."""
        self._filler.unlink(missing_ok=True)


@contextlib.contextmanager
def mounted(folder: Path, size: str = "96m") -> Iterator[Disk]:
    """Mount a disk of that size on a new folder for the block."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "lapwing-test", str(folder)]
    subprocess.run(mount, check=True)
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", str(folder)], check=True)
