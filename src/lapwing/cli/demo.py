"""`lapwing demo`: deploy under load, break things, count failed requests."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context, output_option

if TYPE_CHECKING:
    from lapwing.cli.output import Printer
    from lapwing.commands.demo.result import Played, Result
    from lapwing.commands.demo.stage import Stage

LEGEND = (
    "SEEN AFTER: from the moment the agent begins to switch to the first request that the new "
    "release answers.\nOVERLAP: from that request to the last one sent that the old release "
    "answers."
)


@click.command("demo")
@click.option(
    "--example",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder of examples/company-inc, where Lapwing does not run from a checkout.",
)
@click.option("--keep", is_flag=True, help="Leave the example running, and say where.")
@output_option
@click.pass_obj
def command(context: Context, example: Path | None, keep: bool) -> int:
    """Play with the example under steady load: a good change, a broken one, one that goes bad after
    the switch, a rollback. Count every request that fails.

    It plays on a copy, with a home and a port of its own; what you run is not touched.

    Exit status: 0 if no request failed and every act came out as it had to, 1 if not,
    130 interrupted.
    """
    from lapwing.commands.demo import play, stage

    printer = context.printer
    found = stage.find_example(example)
    with _interruptible(), contextlib.ExitStack() as ending:
        made = stage.build(context.settings, found)
        ending.callback(_clear, made, printer)
        with printer.working("building the example"):
            result = play.play(made, printer.progress, printer.say)
        if keep:
            ending.pop_all()
            _kept(made, printer)
    if context.for_programs:
        printer.json(result.as_json())
    else:
        _show(result, printer)
    return 0 if result.good else 1


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """A request to end is answered as Ctrl-C is: everything is cleared away."""

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _clear(made: Stage, printer: Printer) -> None:
    """Clear the stage away; whoever is impatient meanwhile has to wait for a few seconds."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(n, signal.SIG_IGN) for n in numbers]
    try:
        with printer.working("stopping the example"):
            printer.progress("stopping the example")
            made.clear()
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _kept(made: Stage, printer: Printer) -> None:
    home, port = made.settings.home, made.settings.port
    call = f"LAPWING_HOME={home} LAPWING_PORT={port} lapwing -C {made.source}"
    printer.say(f"The example goes on running at {made.target.url}")
    printer.say(f"  look at it:    {call} status")
    printer.say(f"  stop it:       {call} down, and remove {made.folder}")


def _show(result: Result, printer: Printer) -> None:
    ledger = result.ledger
    printer.data("")
    printer.table(
        ("TRAFFIC", "SENT", "FAILED", "LONGEST"),
        [(t.kind, f"{t.sent}", f"{t.failed}", _ms(t.longest)) for t in result.totals()]
        + [("all", f"{ledger.sent}", f"{len(ledger.failures)}", "")],
    )
    printer.data("")
    versions = ledger.versions()
    names = _names(result)
    rows = [(names.get(v, "the page"), v, f"{count}") for v, count in versions.items()]
    rows += [(name, v, "0") for v, name in names.items() if v not in versions]
    printer.table(("RELEASE", "VERSION", "ANSWERED"), rows)
    printer.data("")
    printer.table(
        ("ACT", "OUTCOME", "COMMIT TO SWITCH", "SEEN AFTER", "OVERLAP", "ROLLED BACK IN"),
        [_row(result, act) for act in result.played],
    )
    printer.say(LEGEND, style="dim")
    for act in result.played:
        if act.outcome != act.expected:
            printer.say(f"{act.name} was expected to be {act.expected}.", style="red")
    _verdict(result, printer)


def _row(result: Result, act: Played) -> tuple[str, ...]:
    seen = result.seen(act)
    return (
        act.name,
        act.outcome,
        _ms(act.to_switch),
        "-" if seen is None else _ms(seen.delay),
        "-" if seen is None else _ms(seen.window),
        _ms(act.to_roll_back),
    )


def _verdict(result: Result, printer: Printer) -> None:
    ledger = result.ledger
    printer.data("")
    for failure in ledger.failures[:10]:
        printer.data(f"  failed: {failure.kind}, {failure.failure}, by {failure.version or '?'}")
    if ledger.races:
        printer.data(
            f"{len(ledger.races)} kept connections were closed just as a client sent on them; "
            "the requests were sent again and are counted apart."
        )
    sent, failed = ledger.sent, len(ledger.failures)
    text = f"{sent} requests, {failed} failed, in {result.seconds:.0f} s."
    printer.data(printer.paint(text, "green" if result.good else "red"))


def _names(result: Result) -> dict[str, str]:
    """What each release of the API is in the story."""
    names = {result.played[0].old: "the first release"} if result.played else {}
    for act in result.played:
        if act.verb == "deploy":
            names.setdefault(act.new, act.name)
    return names


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"
