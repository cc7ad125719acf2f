"""Progress of blobs on their way: bars on a terminal, a plain line for each one elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lapwing.cli.output import Printer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from lapwing.registry.push import BlobOutcome
    from lapwing.registry.push import Progress as Listener

WORTH_A_LINE = 1024 * 1024
"""Bytes: where there is no terminal, a smaller blob has no line of its own."""


class Silent:
    """Shows nothing."""

    def begin(self, name: str, size: int) -> None:
        """Nothing."""

    def advance(self, name: str, more: int) -> None:
        """Nothing."""

    def end(self, name: str, outcome: BlobOutcome) -> None:
        """Nothing."""


class Lines(Silent):
    """One line for each large blob that is through."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._sizes: dict[str, int] = {}

    def begin(self, name: str, size: int) -> None:
        """Remember the size."""
        self._sizes[name] = size

    def end(self, name: str, outcome: BlobOutcome) -> None:
        """Tell what became of it."""
        total = self._sizes.get(name, 0)
        if total >= WORTH_A_LINE:
            word = "sent" if outcome == "copied" else f"{outcome},"
            self._printer.say(f"{word} {short(name)} ({size(total)})")


class Bars:
    """A bar for each blob that is being sent, and one for all."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._all = progress.add_task("all", total=0)
        self._tasks: dict[str, TaskID] = {}
        self._sizes: dict[str, int] = {}
        self._counted: dict[str, int] = {}

    def begin(self, name: str, size: int) -> None:
        """The whole grows; a bar comes when bytes do."""
        self._sizes[name] = size
        self._counted[name] = 0
        total = sum(self._sizes.values())
        self._progress.update(self._all, total=total)

    def advance(self, name: str, more: int) -> None:
        """Move the bars."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(short(name), total=self._sizes[name])
        self._counted[name] += more
        self._progress.advance(self._tasks[name], more)
        self._progress.advance(self._all, more)

    def end(self, name: str, outcome: BlobOutcome) -> None:
        """Take its bar away."""
        self._progress.advance(self._all, self._sizes[name] - self._counted[name])
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))


@contextmanager
def transfer(printer: Printer, *, quiet: bool = False) -> Iterator[Listener]:
    """Who is told of blobs while the block runs; nobody if `quiet`."""
    if quiet:
        yield Silent()
    elif not printer.err.isatty():
        yield Lines(printer)
    else:
        with printer.bars() as progress:
            yield Bars(progress)


def short(digest: str) -> str:
    """A digest as people tell it apart."""
    return digest.partition(":")[2][:12]


def size(count: float) -> str:
    """Bytes for people: 1.4 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
