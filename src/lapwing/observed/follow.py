"""Follow a file of lines that is rotated: renamed to an old name, and begun anew."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO


class LineFollower:
    """Reads the lines that are appended to a file, also across a rotation.

    `written` is when the file was last written, in nanoseconds of Unix time.
    """

    def __init__(self, path: Path, old: Path) -> None:
        self._path = path
        self._old = old
        self._file: int | None = None
        self._offset = 0
        self._rest = b""
        self.written = 0

    def begin(self, file: os.stat_result, rest: bytes = b"") -> None:
        """Start at the end that a file had; `rest` is its last line, which is not whole yet."""
        self._file, self._offset, self._rest = file.st_ino, file.st_size, rest

    def read(self) -> list[bytes]:
        """Return the lines since the last call, also those in a file that was rotated meanwhile."""
        data = b""
        try:
            with self._path.open("rb") as file:
                found = os.fstat(file.fileno())
                if found.st_ino != self._file:
                    data = self._read_rotated()
                    self._file, self._offset = found.st_ino, 0
                elif found.st_size < self._offset:
                    self._offset = 0  # It was emptied.
                self.written = found.st_mtime_ns
                data += self._next(file)
        except FileNotFoundError:
            data = self._read_rotated()
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def _read_rotated(self) -> bytes:
        """Return the rest of the file that was read at the last call."""
        try:
            with self._old.open("rb") as file:
                same = os.fstat(file.fileno()).st_ino == self._file
                return self._next(file) if same else b""
        except FileNotFoundError:
            return b""

    def _next(self, file: BinaryIO) -> bytes:
        file.seek(self._offset)
        data = file.read()
        self._offset += len(data)
        return data
