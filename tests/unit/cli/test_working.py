"""What is said while a spinner turns stands above it, on a line of its own."""

from __future__ import annotations

import io
import time

import pytest

from lapwing.cli.output import Printer, _Step


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_sentence_does_not_run_into_the_spinner() -> None:
    terminal = Terminal()
    printer = Printer(err=terminal, out=io.StringIO())
    with printer.working("building"):
        until = time.monotonic() + 30
        while "building" not in terminal.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
        printer.say("a [good] change", style="green")
    written = terminal.getvalue()
    before, said, after = written.partition("a [good] change")
    assert said
    assert "building" in before
    assert before.rpartition("building")[2].count("\x1b[2K"), "the spinner is erased first"
    assert after.replace("\x1b[0m", "").startswith("\n")


def test_elsewhere_it_is_a_plain_line() -> None:
    stream = io.StringIO()
    printer = Printer(err=stream, out=io.StringIO())
    with printer.working("building"):
        printer.progress("step")
        printer.say("said")
    assert stream.getvalue() == "step\nsaid\n"


def test_step_shows_its_elapsed_time_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    step = _Step("building a[1]")
    shown = []
    for passed in (0.9, 1.0, 59.9, 125.0):
        now[0] = 100.0 + passed
        shown.append(step.__rich__().plain)
    assert shown == [
        "building a[1]",
        "building a[1] (1 s)",
        "building a[1] (59 s)",
        "building a[1] (2 min 5 s)",
    ]


def test_elapsed_time_is_on_the_terminal() -> None:
    terminal = Terminal()
    printer = Printer(err=terminal, out=io.StringIO())
    with printer.working("building"):
        printer.progress("pushing api")
        until = time.monotonic() + 60
        while "(1 s)" not in terminal.getvalue() and time.monotonic() < until:
            time.sleep(0.05)
    assert "(1 s)" in terminal.getvalue()
