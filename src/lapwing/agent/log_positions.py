"""How far each log of an environment was shipped, and what comes next.

A log is the file NAME.log and its part before the last rotation, NAME.log.1 (`logs`). A position is
an offset in one of them. The file is known by its inode and by the checksum of its beginning,
because a new file may get the inode of a removed one. A log that was rotated twice since the last
position, or removed, has lost lines.
"""

from __future__ import annotations

import contextlib
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec

from lapwing.observed.logs import Notes, older

MAX_LINES = 2000
"""How many lines are read at once: an encoded record is about 250 bytes longer than its line."""
MAX_LINE_BYTES = 64 * 1024
"""Longer lines are shipped in parts."""
SETTLED_S = 10
"""The age at which the last line of a file counts as complete without a line feed."""
_HEAD_BYTES = 256


class Position(msgspec.Struct, frozen=True):
    """An offset in a file, and the checksum of at most 256 bytes before it, from the beginning."""

    inode: int
    offset: int
    head: int


@dataclass(frozen=True, slots=True)
class Part:
    """Lines of a log with their times (nanoseconds of Unix time), and the position after them."""

    lines: list[tuple[bytes, int]]
    after: Position
    lost: bool
    """Whether lines before these were lost."""
    written: int
    """When the log was last written, in nanoseconds."""


@dataclass(frozen=True, slots=True)
class _File:
    file: BinaryIO
    stat: os.stat_result

    def position(self, offset: int) -> Position:
        self.file.seek(0)
        head = self.file.read(min(offset, _HEAD_BYTES))
        return Position(self.stat.st_ino, offset, zlib.crc32(head))

    def has(self, position: Position) -> bool:
        """Return whether a position is in this file, and not in one that had its inode before."""
        is_same = position.inode == self.stat.st_ino and position.offset <= self.stat.st_size
        return is_same and self.position(position.offset) == position


def read(log: Path, begin: Position | None, limit: int, *, is_current: bool) -> Part | None:
    """Return complete lines after a position, of at most `limit` bytes; None if there are none.

    They are at most MAX_LINES. Without a position, they are the first lines. With `is_current`,
    all were just written; else their times are those of the notes (`observed.logs`). Raises
    OSError.
    """
    with ExitStack() as stack:
        files = list(_open(log, stack))
        at = next((n for n, f in enumerate(files) if begin is not None and f.has(begin)), None)
        offset = begin.offset if begin is not None and at is not None else 0
        pieces: list[tuple[_File, int, bytes]] = []
        for each in files[at or 0 :]:
            each.file.seek(offset)
            data = each.file.read(min(limit, each.stat.st_size - offset))
            pieces.append((each, offset, data))
            limit, offset = limit - len(data), 0
        if not (data := b"".join(piece for _, _, piece in pieces)):
            return None
        written = files[-1].stat.st_mtime_ns
        is_settled = limit > 0 and time.time_ns() - written > SETTLED_S * 10**9
        notes, lines, end = None if is_current else Notes(log), list[tuple[bytes, int]](), 0
        for line in _lines(data, is_settled=is_settled):
            if len(lines) == MAX_LINES:
                break
            end += len(line)
            if text := line.rstrip(b"\r\n"):
                file, at_end = _place(pieces, end)
                moment = written if notes is None else notes.moment(file.stat, at_end)
                lines.append((text, moment))
        if not end:
            return None
        file, at_end = _place(pieces, end)
        lost = begin is not None and at is None
        return Part(lines, file.position(at_end), lost, written)


def end(log: Path, since: int) -> Position | None:
    """Return the position after what was written to a log before a moment; None at its beginning.

    Raises OSError.
    """
    with ExitStack() as stack:
        *_, last = [None, *_open(log, stack)]
        offset = Notes(log).size_before(last.stat, since) if last is not None else 0
        return last.position(offset) if last is not None and offset else None


def unread(log: Path, position: Position | None) -> int:
    """Return the number of bytes of a log after a position; 0 if it was removed."""
    with ExitStack() as stack, contextlib.suppress(OSError):
        files = list(_open(log, stack))
        at = next((n for n, f in enumerate(files) if position and f.has(position)), None)
        size = sum(f.stat.st_size for f in files[at or 0 :])
        return size - (position.offset if position and at is not None else 0)
    return 0


def _open(log: Path, stack: ExitStack) -> Iterator[_File]:
    """Open the parts of a log, the newest last: a rotation in between leaves nothing out."""
    found: list[_File] = []
    for path in (log, older(log)):
        with contextlib.suppress(FileNotFoundError):
            file = stack.enter_context(path.open("rb"))
            stat = os.fstat(file.fileno())
            if not found or found[0].stat.st_ino != stat.st_ino:
                found.append(_File(file, stat))
    yield from reversed(found)


def _lines(data: bytes, *, is_settled: bool) -> Iterator[bytes]:
    """Yield lines with their line feed, long ones in parts; the last one if it is settled."""
    *lines, rest = data.split(b"\n")
    for line in (*(each + b"\n" for each in lines), rest):
        is_whole = line.endswith(b"\n") or is_settled
        for start in range(0, len(line), MAX_LINE_BYTES):
            part = line[start : start + MAX_LINE_BYTES]
            if is_whole or len(part) == MAX_LINE_BYTES:
                yield part


def _place(pieces: list[tuple[_File, int, bytes]], end: int) -> tuple[_File, int]:
    """Return the file and the offset in it of an offset in all pieces together."""
    for file, offset, data in pieces:
        if end <= len(data):
            return file, offset + end
        end -= len(data)
    raise AssertionError("the offset is after the last piece")
