"""The printer of the terminal.

stdout is data, stderr is messages: a pipe gets the data and nothing else. Colour never carries
meaning alone, and is off when NO_COLOR is set or the stream is not a terminal. Progress is one line
that is updated on a terminal, with the elapsed time of the step, and one plain line for each step
elsewhere, also in a job of CI that has a terminal (the variable CI is set there). Rich is imported
only where it is used, because the start of every command counts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from lapwing.errors import BuildError, LapwingError, Problem, StackFileError
from lapwing.system.sanitize import escape_controls

if TYPE_CHECKING:
    from rich.progress import Progress
    from rich.status import Status
    from rich.text import Text

_STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "36"}


class Printer:
    """Writes data to `out` and messages to `err`."""

    def __init__(
        self, *, color: bool = True, out: TextIO | None = None, err: TextIO | None = None
    ) -> None:
        self.out = out or sys.stdout
        self.err = err or sys.stderr
        self._color_out = color and self.out.isatty()
        self._color_err = color and self.err.isatty()
        self.updates_lines = self.err.isatty() and os.environ.get("CI", "") in ("", "false")
        """Whether lines are updated in place."""
        self._status: Status | None = None
        self.mask: Callable[[str], str] = escape_controls
        """Applied to errors, which may quote an application."""

    def data(self, text: str) -> None:
        """Print a line of data, in the order of the messages where both go to one file."""
        print(text, file=self.out, flush=True)

    def json(self, value: Any) -> None:
        """Print data as JSON."""
        print(json.dumps(value, indent=2, ensure_ascii=False), file=self.out)

    def say(self, text: str, *, style: str | None = None) -> None:
        """Print a message to stderr."""
        painted = self._paint(text, style, self._color_err)
        if self._status is not None:
            from rich.text import Text

            self._status.console.print(Text.from_ansi(painted), soft_wrap=True)  # Above the line.
            return
        print(painted, file=self.err, flush=True)

    def paint(self, text: str, style: str) -> str:
        """Return text for stdout in a style, or unchanged where colour is off."""
        return self._paint(text, style, self._color_out)

    def table(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print rows under a header in aligned columns, without trailing blanks."""
        widths = [max(len(str(r[i])) for r in [header, *rows]) for i in range(len(header))]
        for number, row in enumerate([header, *rows]):
            cells = (str(c).ljust(w) for c, w in zip(row, widths, strict=True))
            line = "  ".join(cells).rstrip()
            self.data(self.paint(line, "bold") if number == 0 else line)

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Show a spinner on a terminal, nothing elsewhere.

        Use `progress` inside to change the line.
        """
        if not self.updates_lines:
            yield
            return
        from rich.console import Console

        console = Console(file=self.err, no_color=not self._color_err)
        with console.status(_Step(text)) as status:
            self._status = status
            try:
                yield
            finally:
                self._status = None

    @contextmanager
    def bars(self) -> Iterator[Progress]:
        """Yield progress bars of bytes, which are removed at the end of the block."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TimeElapsedColumn,
            TransferSpeedColumn,
        )

        console = Console(file=self.err, no_color=not self._color_err)
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeElapsedColumn())
        with Progress("{task.description}", *columns, console=console, transient=True) as shown:
            yield shown

    def progress(self, text: str) -> None:
        """Show the current step: update the line of `working`, or print a plain line."""
        if self._status is not None:
            self._status.update(_Step(text))
        elif not self.updates_lines:
            self.say(text)

    def confirm(self, question: str) -> bool:
        """Ask a yes-or-no question; false where no terminal can answer it."""
        import click

        return sys.stdin.isatty() and click.confirm(question, err=True)

    def error(self, error: LapwingError) -> None:
        """Print what is wrong, where, and what to do."""
        if isinstance(error, StackFileError):
            for problem in error.problems:
                self._problem(problem)
            count = len(error.problems)
            names = ", ".join(dict.fromkeys(p.where.file.name for p in error.problems))
            self.say(f"{count} problem{'s' if count > 1 else ''} in {names}.")
            return
        self.say(f"{self._paint('error', 'red', self._color_err)}: {self.mask(str(error))}")
        if error.detail:
            for line in self.mask(error.detail).splitlines():
                self.say(f"    {line}".rstrip())
        if isinstance(error, BuildError) and error.log:
            self.say(f"  full log: {error.log}")
        if error.hint:
            self.say(f"  {self.mask(error.hint)}")

    def _problem(self, problem: Problem) -> None:
        where = problem.where
        self.say(f"{where}: {self._paint('error', 'red', self._color_err)}: {problem.message}")
        if where.column is not None and (source := _line(where.file, where.line)) is not None:
            self.say(f"    {source}")
            self.say("    " + " " * (where.column - 1) + "^")
        if problem.hint:
            self.say(f"  {problem.hint}")

    @staticmethod
    def _paint(text: str, style: str | None, color: bool) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if color and style else text


class _Step:
    """The line of a step on a terminal: it has the elapsed time from the first second on.

    Rich renders it again several times a second.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._began = time.monotonic()

    def __rich__(self) -> Text:
        from rich.text import Text

        seconds = int(time.monotonic() - self._began)
        minutes = f"{seconds // 60} min " if seconds >= 60 else ""
        elapsed = f" ({minutes}{seconds % 60} s)" if seconds else ""
        return Text.assemble(self._text, (elapsed, "dim"))


def describe(error: LapwingError, mask: Callable[[str], str] = escape_controls) -> dict[str, Any]:
    """Return an error as JSON data: the same shape for every verb."""
    problems = error.problems if isinstance(error, StackFileError) else ()
    return {
        "error": {
            "code": error.code,
            "message": mask(error.message),
            "hint": error.hint and mask(error.hint),
            "where": str(error.where) if error.where else None,
            "detail": error.detail and mask(error.detail),
            "problems": [
                {"message": p.message, "where": str(p.where), "hint": p.hint} for p in problems
            ],
        }
    }


def _line(file: Path, number: int | None) -> str | None:
    if number is None:
        return None
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            for count, line in enumerate(lines, start=1):
                if count == number:
                    return line.rstrip("\n")[:200]
    except OSError:
        pass
    return None
