"""`lapwing cost`: estimate the monthly cost of a stack.

Everything is computed from the stack file and Lapwing's price files; no cloud API is called.
Without `-e`, all environments except `local` are estimated together.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli.context import Context
from lapwing.cli.options import environments_option, remember_output
from lapwing.cli.rendered import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapwing.cost.ledger import Estimate
    from lapwing.stack.load import LoadedStack

_SUMMARY = ("", "LOW", "HIGH")


@click.command("cost")
@environments_option
@click.option("--compare", is_flag=True, help="Compare one machine, staging on spot, production.")
@click.option("--diff", "revision", metavar="REV", help="Show the changes since a git revision.")
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Also write a bar chart (SVG).",
)
@click.option(
    "--output",
    type=click.Choice(["text", "json", "markdown"]),
    default="text",
    show_default=True,
    callback=remember_output,
    help="Output format.",
)
@click.pass_obj
def command(
    context: Context,
    environment: str | None,
    compare: bool,
    revision: str | None,
    picture: Path | None,
    output: str,
) -> None:
    """Estimate the monthly cost of the stack.

    Uses list prices, with source and date; items without a price are listed as unknown and not
    counted.
    """
    from lapwing.cost.book import book
    from lapwing.cost.chart import bar_chart
    from lapwing.cost.estimate import estimate
    from lapwing.errors import UsageError
    from lapwing.stack.load import environments, find

    if compare and revision:
        raise UsageError("--compare and --diff exclude each other.", hint="Use one of them.")
    if picture is not None and picture.suffix != ".svg":
        raise UsageError(
            f"{picture} does not end with .svg; the bar chart is SVG.",
            hint="`lapwing diagram cost -o FILE.png` draws a pie chart as PNG.",
        )
    path = find(context.directory)
    stacks = environments(path, environment)
    now = estimate(stacks, book())
    if picture is not None:
        write_file(picture, bar_chart(now).encode())
        context.printer.say(f"Wrote {picture}.")
    if compare:
        _compare(context, stacks, output)
    elif revision is not None:
        _diff(context, path, revision, environment, now, output)
    else:
        _report(context, stacks, now, output)


def _report(context: Context, stacks: Sequence[LoadedStack], now: Estimate, output: str) -> None:
    from lapwing.cost import report
    from lapwing.cost.alternatives import levers
    from lapwing.cost.book import book

    found = levers(stacks, book())
    budget = _budget(stacks)
    printer = context.printer
    if output == "json":
        printer.json(report.as_data(now, found) | {"budget": budget})
        return
    if output == "markdown":
        printer.data(report.markdown(now, found).rstrip("\n"))
        return
    if not now.lines:
        printer.data(f"{now.environment}: nothing is billed.")
        printer.say("It runs on this machine only. Choose another environment with -e NAME.")
        return
    printer.table(report.HEADER, report.rows(now.lines))
    for key in ("environment", "project"):
        cells = report.group_rows(now, key)
        if len(cells) > 1:
            printer.data("")
            printer.table((key.upper(), *_SUMMARY[1:]), cells)
    if found:
        printer.data("")
        saved = [row[:2] for row in report.lever_rows(found)]
        printer.table(("SAVINGS OPTION", "PER MONTH"), saved)
    printer.data("")
    printer.data(f"{now.environment}: {report.sentence(now)}")
    _print_notes(context, now, budget)


def _print_notes(context: Context, now: Estimate, budget: float | None) -> None:
    """Print sources, assumptions and unknown items on stderr."""
    from lapwing.cost.report import source_lines, unknown_notes

    for source in source_lines(now.lines):
        context.printer.say(source, style="dim")
    for note in now.notes:
        context.printer.say(note, style="dim")
    for note in unknown_notes(now):
        context.printer.say(note, style="dim")
    for line in now.lines:
        if "Autopilot" in line.note and line.item.endswith(": vCPU"):
            context.printer.say(f"{line.part}: {line.note}", style="dim")
    if now.unstated:
        context.printer.say(f"Not set, so not counted: {', '.join(now.unstated)}.", style="dim")
    if budget is not None and float(now.high) > budget:
        how = "is" if float(now.low) > budget else "may be"
        context.printer.say(f"The estimate {how} over the budget of {budget:,.2f}.", style="yellow")


def _budget(stacks: Sequence[LoadedStack]) -> float | None:
    """Sum the budgets of the environments; None if one has none."""
    given = [s.settings.budget for s in stacks]
    known = [b for b in given if b is not None]
    return sum(known) if known and len(known) == len(given) else None


def _compare(context: Context, stacks: Sequence[LoadedStack], output: str) -> None:
    from lapwing.cost import report
    from lapwing.cost.alternatives import compare
    from lapwing.cost.book import book
    from lapwing.errors import UsageError

    found = compare(stacks, book())
    if not found:
        raise UsageError(
            "No environment of this stack has a `cloud`.",
            hint="Add one with `target: kubernetes` and `cloud: {provider: gcp, region: ...}`.",
        )
    if output == "json":
        context.printer.json([report.as_data(e) for e in found])
        return
    cells = [
        (e.environment, report.money(e.low), report.money(e.high), _unknowns(e)) for e in found
    ]
    if output == "markdown":
        header = ("Infrastructure", "Low", "High", "Unknown")
        context.printer.data(report.table(header, cells, right=(1, 2)).rstrip("\n"))
        return
    context.printer.table(("INFRASTRUCTURE", "LOW", "HIGH", "UNKNOWN"), cells)
    context.printer.say(f"One machine: {', '.join(found[0].notes)}.", style="dim")
    for each in found:
        if each.unknown:
            items = ", ".join(dict.fromkeys(line.item for line in each.unknown))
            context.printer.say(f"Unknown in {each.environment}: {items}.", style="dim")


def _unknowns(estimate: Estimate) -> str:
    count = len(estimate.unknown)
    return f"{count} line{'s' if count > 1 else ''}" if count else "-"


def _diff(
    context: Context,
    path: Path,
    revision: str,
    environment: str | None,
    after: Estimate,
    output: str,
) -> None:
    from lapwing.cost import report
    from lapwing.cost.ledger import changed_lines

    before = _before(context, path, revision, environment)
    changes = changed_lines(before, after)
    more = report.signed(after.low - before.low, after.high - before.high)
    if output == "json":
        data: dict[str, Any] = {
            "revision": revision,
            "before": report.as_data(before),
            "after": report.as_data(after),
            "changes": report.changes_as_data(changes),
        }
        context.printer.json(data)
    elif output == "markdown":
        context.printer.data(report.markdown_changes(changes, before, after).rstrip("\n"))
    else:
        if changes:
            header = ("ITEM", "BEFORE", "AFTER", "CHANGE")
            context.printer.table(header, report.change_rows(changes))
            context.printer.data("")
        context.printer.data(
            f"{more} US dollars per month: {report.span(before.low, before.high)} at {revision}, "
            f"{report.span(after.low, after.high)} now."
        )
        if note := report.unknowns(before, after):
            context.printer.say(note, style="dim")


def _before(context: Context, path: Path, revision: str, environment: str | None) -> Estimate:
    """Estimate the stack file at a revision; an environment that it lacks costs nothing."""
    from lapwing.cost.book import book
    from lapwing.cost.estimate import estimate
    from lapwing.cost.ledger import Estimate
    from lapwing.errors import SourceError, StackFileError
    from lapwing.stack.load import environments, names
    from lapwing.system.git import read_file_at

    content = read_file_at(path, revision, context.settings.environ)
    with tempfile.TemporaryDirectory(prefix="lapwing-cost-") as folder:
        old = Path(folder) / path.name
        old.write_bytes(content)
        try:
            if environment is not None and environment not in names(old):
                return Estimate(environment, ())
            return estimate(environments(old, environment, folders=False), book())
        except StackFileError as error:
            problems = "\n".join(f"{p.where.line or 1}: {p.message}" for p in error.problems)
            raise SourceError(
                f"The stack file at {revision} is invalid.",
                detail=problems,
                hint="Compare with a revision that has a valid stack file.",
            ) from error
