"""What is said while a spinner turns stands above it, on a line of its own."""

from __future__ import annotations

import io
import time

from lapwing.cli.output import Printer


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
