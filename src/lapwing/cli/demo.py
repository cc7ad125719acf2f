"""`lapwing demo`: deploy under load, break things, count failed requests."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.cli.options import output_option

if TYPE_CHECKING:
    from lapwing.cli.output import Printer
    from lapwing.commands.demo.result import Result, StepResult
    from lapwing.commands.demo.sandbox import Sandbox

LEGEND = (
    "SEEN AFTER: from the start of the switch in the agent to the first request that the new "
    "release responds to.\nOVERLAP: from that request to the last one that the old release "
    "responds to."
)


@click.command("demo")
@click.option(
    "--example",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="The folder of examples/company-inc, if Lapwing does not run from a clone.",
)
@click.option("--keep", is_flag=True, help="Leave the example running and print its address.")
@output_option
@click.pass_obj
def command(context: Context, example: Path | None, keep: bool) -> int:
    """Deploy the example under load and count failed requests.

    Deploys a good change, a broken one, a slow one that is rolled back, and rolls back. Uses the
    committed example, in a separate home and on a separate port: your environments and your changes
    to the example are not used or changed.

    Exit status: 0 if no request failed and every step had its expected outcome, 1 if not,
    130 interrupted.
    """
    from lapwing.commands.demo import run, sandbox

    printer = context.printer
    with contextlib.ExitStack() as ending:
        made = sandbox.build(context.settings, example)
        ending.callback(_clear, made, printer)
        with printer.working("building the example"):
            result = run.run(made, printer.progress, printer.say)
        if keep:
            ending.pop_all()
            _kept(made, printer)
    if context.for_programs:
        printer.json(result.as_json())
    else:
        _show(result, printer)
    return 0 if result.good else 1


def _clear(made: Sandbox, printer: Printer) -> None:
    """Remove the sandbox; signals are ignored for these few seconds."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(n, signal.SIG_IGN) for n in numbers]
    try:
        with printer.working("stopping the example"):
            printer.progress("stopping the example")
            made.clear()
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _kept(made: Sandbox, printer: Printer) -> None:
    home, port = made.settings.home, made.settings.port
    call = f"LAPWING_HOME={home} LAPWING_PORT={port} lapwing -C {made.source}"
    printer.say(f"The example continues to run at {made.target.url}")
    printer.say(f"  show its status:  {call} status")
    printer.say(f"  stop it:          {call} down, then remove {made.folder}")


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
    printer.table(("RELEASE", "VERSION", "RESPONSES"), rows)
    printer.data("")
    printer.table(
        ("STEP", "OUTCOME", "COMMIT TO SWITCH", "SEEN AFTER", "OVERLAP", "ROLLED BACK IN"),
        [_row(result, step) for step in result.results],
    )
    printer.say(LEGEND, style="dim")
    for step in result.results:
        if step.outcome != step.expected:
            printer.say(f"{step.name}: expected {step.expected}, got {step.outcome}.", style="red")
    _verdict(result, printer)


def _row(result: Result, step: StepResult) -> tuple[str, ...]:
    seen = result.seen(step)
    return (
        step.name,
        step.outcome,
        _ms(step.to_switch),
        "-" if seen is None else _ms(seen.delay),
        "-" if seen is None else _ms(seen.window),
        _ms(step.to_roll_back),
    )


def _verdict(result: Result, printer: Printer) -> None:
    ledger = result.ledger
    printer.data("")
    for failure in ledger.failures[:10]:
        printer.data(f"  failed: {failure.kind}, {failure.failure}, by {failure.version or '?'}")
    if ledger.races:
        printer.data(
            f"{len(ledger.races)} kept connections were closed just as a client sent on them; "
            "the requests were sent again and are counted separately."
        )
    sent, failed = ledger.sent, len(ledger.failures)
    text = f"{sent} requests, {failed} failed, in {result.seconds:.0f} s."
    printer.data(printer.paint(text, "green" if result.good else "red"))


def _names(result: Result) -> dict[str, str]:
    """Return the step of each release of the API."""
    names = {result.results[0].old: "the first release"} if result.results else {}
    for step in result.results:
        if step.verb == "deploy":
            names.setdefault(step.new, step.name)
    return names


def _ms(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.0f} s"
