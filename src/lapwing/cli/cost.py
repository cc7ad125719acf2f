"""`lapwing cost`: estimate the monthly cost of a stack.

Everything is computed from what Lapwing renders and its price files; no cloud API is called.
Without `-e`, all environments except `local` are estimated together.
"""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime
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

_SUMMARY = ("", "LOW", "EXPECTED", "HIGH")


@click.command("cost")
@environments_option
@click.option(
    "--compare",
    is_flag=True,
    help="Compare one machine of each provider, EKS, AKS, staging on spot pods, and production.",
)
@click.option("--prices", is_flag=True, help="List the sources of prices and their age.")
@click.option(
    "--reconcile",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="BILLING.csv",
    help="Compare with an export of Google Cloud's bill, line by line.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["unpriced", "budget"]),
    multiple=True,
    help="Exit with status 1 if a line has no price, or if the estimate is not within the budget.",
)
@click.option("--diff", metavar="REV", help="Show the changes since a git revision.")
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
    /,
    environment: str | None,
    output: str,
    picture: Path | None,
    fail_on: tuple[str, ...],
    **chosen: Any,
) -> int:
    """Estimate the monthly cost of the stack.

    Uses list prices, with source and date. If an item has no price, the total is only a lower
    bound.
    """
    from lapwing.cost.book import book
    from lapwing.cost.chart import bar_chart
    from lapwing.cost.estimate import estimate
    from lapwing.errors import UsageError
    from lapwing.inventory.read import read
    from lapwing.stack.load import environments, find

    given = [f"--{name}" for name, value in chosen.items() if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} exclude each other.", hint="Use one of them.")
    if picture is not None and picture.suffix != ".svg":
        raise UsageError(
            f"{picture} does not end with .svg; the bar chart is SVG.",
            hint="`lapwing diagram cost -o FILE.png` draws a pie chart as PNG.",
        )
    if chosen["prices"]:
        _prices(context, output)
        return 0
    path = find(context.directory)
    stacks = environments(path, environment)
    now = estimate(read(stacks), book())
    if picture is not None:
        write_file(picture, bar_chart(now).encode())
        context.printer.say(f"Wrote {picture}.")
    if chosen["compare"]:
        _compare(context, stacks, output)
    elif chosen["diff"] is not None:
        _diff(context, path, chosen["diff"], environment, now, output)
    elif chosen["reconcile"] is not None:
        _reconcile(context, now, chosen["reconcile"], output)
    else:
        _report(context, stacks, now, output)
    return _failures(context, stacks, now, fail_on)


def _failures(
    context: Context, stacks: Sequence[LoadedStack], now: Estimate, fail_on: tuple[str, ...]
) -> int:
    """Print why `--fail-on` fails, and return the exit status."""
    from lapwing.cost.budget import budgets

    problems = []
    if now.unknown and "unpriced" in fail_on:
        problems.append(f"No price is recorded for: {now.unknown_items}.")
    if "budget" in fail_on:
        found = list(budgets(stacks, now))
        if not found:
            problems.append("No environment sets `budget`, so it cannot be checked.")
        problems += [each.failure for each in found if each.failure]
    for problem in problems:
        context.printer.say(problem, style="red")
    return 1 if problems else 0


def _prices(context: Context, output: str) -> None:
    """List the sources of prices, the oldest first."""
    from lapwing.cost import report
    from lapwing.cost.book import book

    data = report.sources_as_data(book(), datetime.now(tz=UTC).date())
    header = ("DATE", "DAYS", "PRICES", "KIND", "SOURCE")
    cells = [(s["date"], str(s["days"]), str(s["prices"]), s["kind"], s["source"]) for s in data]
    if output == "json":
        context.printer.json({"sources": data})
    elif output == "markdown":
        titles = [name.capitalize() for name in header]
        context.printer.data(report.table(titles, cells, right=(1, 2)).rstrip("\n"))
    else:
        context.printer.table(header, cells)


def _reconcile(context: Context, now: Estimate, bill: Path, output: str) -> None:
    """Print the estimate beside the bill."""
    from lapwing.cost import report
    from lapwing.cost.book import book
    from lapwing.cost.reconcile import read_bill, reconcile
    from lapwing.errors import UsageError

    try:
        rows = read_bill(bill.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read {bill}: {error}.", hint="Give a CSV file.") from error
    found = reconcile(now, rows, book())
    header = ("ITEM", "LOW", "EXPECTED", "HIGH", "BILLED", "DIFFERENCE", "NOTE")
    if output == "json":
        context.printer.json({"compared": report.comparison_as_data(found)})
    elif output == "markdown":
        titles = [name.capitalize() for name in header]
        cells = report.comparison_rows(found)
        context.printer.data(report.table(titles, cells, right=range(1, 6)).rstrip("\n"))
    else:
        context.printer.table(header, report.comparison_rows(found))


def _report(context: Context, stacks: Sequence[LoadedStack], now: Estimate, output: str) -> None:
    from lapwing.cost import report
    from lapwing.cost.book import book
    from lapwing.cost.budget import budgets
    from lapwing.cost.levers import levers

    found = levers(stacks, book())
    limits = list(budgets(stacks, now))
    printer = context.printer
    if output == "json":
        budget = sum(limit.amount for limit in limits) if limits else None
        printer.json(report.as_data(now, found) | {"budget": budget})
        return
    if output == "markdown":
        printer.data(report.markdown(now, found).rstrip("\n"))
        return
    if not now.lines:
        printer.data(f"{now.environment}: nothing is billed.")
        printer.say(
            f"`{now.environment}` runs on this machine only. Choose another environment with "
            "-e NAME."
        )
        return
    printer.table(report.HEADER, report.rows(now.lines))
    for key in ("environment", "project"):
        cells = report.group_rows(now, key)
        if cells:
            printer.data("")
            printer.table((key.upper(), *_SUMMARY[1:]), cells)
    if found:
        printer.data("")
        saved = [row[:2] for row in report.lever_rows(found)]
        printer.table(("SAVINGS OPTION", "PER MONTH"), saved)
    printer.data("")
    printer.data(f"{now.environment}: {report.sentence(now)}")
    _print_notes(context, now, [report.saving_note(found)] if found else [])
    for each in limits:
        if each.remark:
            printer.say(each.remark, style="yellow")


def _print_notes(context: Context, now: Estimate, more: Sequence[str]) -> None:
    """Print sources, assumptions and unknown items on stderr."""
    from lapwing.cost.report import source_lines, unknown_notes

    for source in source_lines(now.lines):
        context.printer.say(source, style="dim")
    for note in (*now.notes, *more):
        context.printer.say(note, style="dim")
    for note in unknown_notes(now):
        context.printer.say(note, style="dim")
    for line in now.lines:
        if "Autopilot" in line.note and line.item.endswith(": vCPU"):
            context.printer.say(f"{line.part}: {line.note}", style="dim")
    if now.unstated:
        context.printer.say(f"Not set, so not counted: {', '.join(now.unstated)}.", style="dim")


def _compare(context: Context, stacks: Sequence[LoadedStack], output: str) -> None:
    from lapwing.cost import report
    from lapwing.cost.alternatives import compare
    from lapwing.cost.book import book

    found = compare(stacks, book())
    if output == "json":
        context.printer.json([report.as_data(e) for e in found])
        return
    cells = [
        (
            e.environment,
            *(f"{'> ' if e.unknown else ''}{report.money(m)}" for m in (e.low, e.expected, e.high)),
            _unknowns(e),
        )
        for e in found
    ]
    header = ("INFRASTRUCTURE", "LOW", "EXPECTED", "HIGH", "UNKNOWN")
    if output == "markdown":
        titles = [name.capitalize() for name in header]
        context.printer.data(report.table(titles, cells, right=(1, 2, 3)).rstrip("\n"))
        return
    context.printer.table(header, cells)
    context.printer.say(
        "US dollars per month, at list prices without tax; with `>`, a lower bound.", style="dim"
    )
    for each in found[:-2]:
        context.printer.say(f"{', '.join(each.notes)}.", style="dim")
    for each in found:
        if each.unknown:
            text = f"Unknown in {each.environment}: {each.unknown_items}."
            context.printer.say(text, style="dim")


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
    from lapwing.inventory.read import read
    from lapwing.stack.load import StackFile, environments
    from lapwing.system.git import read_file_at

    content = read_file_at(path, revision, context.settings.environ)
    with tempfile.TemporaryDirectory(prefix="lapwing-cost-") as folder:
        old = Path(folder) / path.name
        old.write_bytes(content)
        try:
            if environment is not None and environment not in StackFile(old).environments:
                return Estimate(environment, ())
            stacks = environments(old, environment, folders=False, env_files=False)
            return estimate(read(stacks), book())
        except StackFileError as error:
            problems = "\n".join(f"{p.where.line or 1}: {p.message}" for p in error.problems)
            raise SourceError(
                f"The stack file at {revision} is invalid.",
                detail=problems,
                hint="Compare with a revision that has a valid stack file.",
            ) from error
