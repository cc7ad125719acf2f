"""The logs of replicas: when each part was written, noted by the agent, and how they are read.

    NAME.log         the output of a process, unchanged; NAME.log.1 is the part before a rotation
    NAME.log.times   the release, then notes: inode of the file, size, time of the last write

A line has the time of the first note at or after its end. The agent looks every second, so the time
is exact after a pause in the output, and otherwise at most that late. What no note covers has the
time at which the file was last written. A note names the file by its inode, which a rotation keeps.
"""

from __future__ import annotations

import bisect
import contextlib
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from lapwing.observed.follow import LineFollower
from lapwing.system.files import write_atomic

MAX_TIMES_BYTES = 512 * 1024
"""Above this size every second note is removed."""
GENERATIONS = 2
"""Generations of a service whose logs are shown at least: one for each slot."""
_BLOCK = 64 * 1024


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a log. `moment` is in nanoseconds of Unix time."""

    moment: int
    text: str
    source: str
    """The service, the replica and the release."""


def older(log: Path) -> Path:
    """Return the path of the part before the last rotation."""
    return log.with_name(log.name + ".1")


def _times(log: Path) -> Path:
    return log.with_name(log.name + ".times")


class TimeKeeper:
    """Notes when logs were written. It is the only writer of the notes of its logs."""

    def __init__(self) -> None:
        self._last: dict[Path, tuple[int, int]] = {}

    def note(self, logs: Iterable[tuple[Path, str]]) -> None:
        """Note the size of each log that has grown; `logs` are paths with their releases.

        A log whose notes cannot be written keeps what it has: the disk may be full.
        """
        for log, release in logs:
            with contextlib.suppress(OSError):
                self._note(log, release)

    def _note(self, log: Path, release: str) -> None:
        found = log.stat()
        if not found.st_size or self._last.get(log) == (found.st_ino, found.st_size):
            return
        path = _times(log)
        line = f"{found.st_ino} {found.st_size} {found.st_mtime_ns}\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            os.write(descriptor, (line if size else f"{release}\n{line}").encode())
        finally:
            os.close(descriptor)
        self._last[log] = (found.st_ino, found.st_size)
        if size > MAX_TIMES_BYTES:
            first, *notes = path.read_bytes().splitlines(keepends=True)
            write_atomic(path, b"".join([first, *notes[1::2]]), sync=False)


def release_of(log: Path) -> str:
    """Return the release that wrote a log; empty before its first note."""
    with contextlib.suppress(OSError), _times(log).open(errors="replace") as file:
        return file.readline().rstrip("\n")
    return ""


class Notes:
    """The notes of a log: its release, and the time of each part by the inode of its file."""

    def __init__(self, log: Path) -> None:
        self.release = ""
        self._of: dict[int, list[tuple[int, int]]] = {}
        try:
            self.release, *lines = _times(log).read_text(errors="replace").splitlines()
        except (OSError, ValueError):
            return
        for line in lines:
            with contextlib.suppress(ValueError):
                inode, size, moment = map(int, line.split())
                notes = self._of.setdefault(inode, [])
                if notes and notes[-1][0] > size:
                    notes.clear()  # The file was emptied, or another one has its inode.
                notes.append((size, moment))

    def moment(self, part: os.stat_result, end: int) -> int:
        """Return when the line that ends at an offset of a file was written."""
        notes = self._of.get(part.st_ino, [])
        at = bisect.bisect_left(notes, (end, 0))
        return notes[at][1] if at < len(notes) else part.st_mtime_ns

    def size_before(self, part: os.stat_result, moment: int) -> int:
        """Return how much of a file was written before a moment; 0 if that is not known."""
        sizes = [size for size, when in self._of.get(part.st_ino, []) if when < moment]
        return max(sizes, default=0) if part.st_mtime_ns >= moment else part.st_size


class LogReader:
    """Reads one log: its end, and then new lines, across rotations."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._follower = LineFollower(log, older(log))

    def tail(self, count: int, *, follow: bool = False) -> list[Line]:
        """Return the last lines; with `follow`, only whole ones, and `new` continues after them."""
        notes = Notes(self.log)
        with ExitStack() as stack:
            parts = self._open(stack)
            found = list(islice(_backwards(parts), count + 1))
        unfinished = found.pop(0) if follow and found and not found[0].whole else None
        if follow and parts:
            self._follower.begin(parts[0][1], unfinished.text if unfinished else b"")
        return [
            self._line(each.text, notes.moment(each.file, each.end), notes.release)
            for each in reversed(found[:count])
        ]

    def new(self) -> list[Line]:
        """Return the lines that were written since the last call."""
        texts = self._follower.read()
        if not texts:
            return []
        release = Notes(self.log).release
        return [self._line(text, self._follower.written, release) for text in texts]

    def _line(self, text: bytes, moment: int, release: str) -> Line:
        decoded = text.decode(errors="replace").removesuffix("\r")
        source = f"{self.log.parent.name} {self.log.stem} {release}".rstrip()
        return Line(moment, decoded, source)

    def _open(self, stack: ExitStack) -> list[tuple[BinaryIO, os.stat_result]]:
        """Open the log and then its older part: a rotation in between leaves nothing out."""
        found: list[tuple[BinaryIO, os.stat_result]] = []
        for path in (self.log, older(self.log)):
            with contextlib.suppress(OSError):
                file = stack.enter_context(path.open("rb"))
                stat = os.fstat(file.fileno())
                if not found or found[0][1].st_ino != stat.st_ino:
                    found.append((file, stat))
        return found


@dataclass(frozen=True, slots=True)
class _Piece:
    """A line, with the file and the offset of its end; the last one may not be `whole` yet."""

    text: bytes
    file: os.stat_result
    end: int
    whole: bool


def _backwards(parts: list[tuple[BinaryIO, os.stat_result]]) -> Iterator[_Piece]:
    """Yield the lines of files from the last to the first.

    Files are given newest first; a line may begin in one and end in the next.
    """
    if not parts:
        return
    rest, place, whole = b"", (parts[0][1], parts[0][1].st_size), False
    for file, stat in parts:
        for begin in range((stat.st_size - 1) // _BLOCK * _BLOCK, -1, -_BLOCK):
            file.seek(begin)
            block = file.read(min(_BLOCK, stat.st_size - begin))
            first, *others = block.split(b"\n")
            end = begin + len(block)
            for text in reversed(others):
                if whole or text + rest:
                    yield _Piece(text + rest, *place, whole)
                end -= len(text)
                rest, place, whole = b"", (stat, end), True
                end -= 1  # The line feed before it.
            rest = first + rest
    if whole or rest:
        yield _Piece(rest, *place, whole)


def shown(folder: Path, generations: Collection[str] = ()) -> list[Path]:
    """Return the logs of a service that are not empty, newest first.

    These are the logs of the `generations` that exist, by their labels, and the newest others up to
    one for each slot: a rejected release, the last run of a job.
    """
    found: dict[str, list[Path]] = {}
    for log in sorted(folder.glob("*.log"), key=_modified, reverse=True):
        if _modified(log):
            found.setdefault(log.name.partition(".")[0], []).append(log)
    others = [label for label in found if label not in generations]
    kept = {*generations, *others[: max(1, GENERATIONS - len(found.keys() - others))]}
    return [log for label, group in found.items() if label in kept for log in group]


def _modified(log: Path) -> float:
    """Return when a log was written; 0 if it is empty or gone."""
    with contextlib.suppress(OSError):
        found = log.stat()
        if found.st_size or older(log).exists():
            return found.st_mtime
    return 0.0
