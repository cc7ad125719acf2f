"""Progress of blobs: bars on a terminal, a line for each large one elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lapwing.cli.output import Printer

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

    from lapwing.registry.push import BlobOutcome, Progress

MIN_LINE_BYTES = 1024 * 1024
"""Without a terminal, no line is printed for a smaller blob."""


class Lines:
    """Prints one line for each large blob that is done."""

    def __init__(self, printer: Printer) -> None:
        self._printer = printer
        self._sizes: dict[str, int] = {}

    def begin(self, name: str, size: int) -> None:
        """Remember the size."""
        self._sizes[name] = size

    def advance(self, name: str, more: int) -> None:
        """Print nothing."""

    def end(self, name: str, outcome: BlobOutcome) -> None:
        """Print the outcome."""
        size = self._sizes.get(name, 0)
        if size >= MIN_LINE_BYTES:
            verb = "sent" if outcome == "copied" else f"{outcome},"
            self._printer.say(f"{verb} {short_digest(name)} ({format_size(size)})")


class Bars:
    """A bar for each blob that is being sent, and one for all."""

    def __init__(self, progress: RichProgress) -> None:
        self._progress = progress
        self._all = progress.add_task("all", total=0)
        self._tasks: dict[str, TaskID] = {}
        self._sizes: dict[str, int] = {}
        self._sent: dict[str, int] = {}

    def begin(self, name: str, size: int) -> None:
        """Add to the total; a bar is added with the first bytes."""
        self._sizes[name] = size
        self._sent[name] = 0
        self._progress.update(self._all, total=sum(self._sizes.values()))

    def advance(self, name: str, more: int) -> None:
        """Advance the bars."""
        if name not in self._tasks:
            size = self._sizes[name]
            self._tasks[name] = self._progress.add_task(short_digest(name), total=size)
        self._sent[name] += more
        self._progress.advance(self._tasks[name], more)
        self._progress.advance(self._all, more)

    def end(self, name: str, outcome: BlobOutcome) -> None:
        """Remove the blob's bar."""
        self._progress.advance(self._all, self._sizes[name] - self._sent[name])
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))


def lines(printer: Printer, *, quiet: bool) -> Progress:
    """Return what prints lines for blobs; nothing if `quiet`."""
    from lapwing.registry.push import Silent

    return Silent() if quiet else Lines(printer)


@contextmanager
def transfer(printer: Printer, *, quiet: bool = False) -> Iterator[Progress]:
    """Show the progress of blobs while the block runs; nothing if `quiet`."""
    if quiet or not printer.updates_lines:
        yield lines(printer, quiet=quiet)
    else:
        with printer.bars() as progress:
            yield Bars(progress)


def short_digest(digest: str) -> str:
    """Return the first 12 digits of a digest."""
    return digest.partition(":")[2][:12]


def format_size(count: float) -> str:
    """Format a number of bytes, such as 1.4 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError
