"""`lapwing cost`: what a stack costs a month, before it is paid.

Everything is computed from the stack file and the price files that come with Lapwing; nothing is
asked of a cloud. Without `-e`, all environments but `local` are estimated together.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli.context import Context, environments_option, remember_output
from lapwing.cli.rendered import write_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapwing.cost.lines import Estimate
    from lapwing.stack.load import LoadedStack

_SUMMARY = ("", "LOW", "HIGH")


@click.command("cost")
@environments_option
@click.option("--compare", is_flag=True, help="One machine, staging on spot, full production.")
@click.option("--diff", "revision", metavar="REV", help="What changed since a git revision.")
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
    help="Text or Markdown for people, JSON for programs.",
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
    """Estimate what the stack costs a month.

    List prices with their source and date; what has no price is unknown and does not count.
    """
    from lapwing.cost import picture as pictures
    from lapwing.cost.book import book
    from lapwing.cost.estimate import estimate
    from lapwing.errors import UsageError
    from lapwing.stack.load import environments, find

    if compare and revision:
        raise UsageError("--compare and --diff answer two questions.", hint="Ask one at a time.")
    if picture is not None and picture.suffix != ".svg":
        raise UsageError(
            f"The picture is SVG, and {picture} does not end with .svg.",
            hint="`lapwing diagram cost -o FILE.png` draws the parts of the bill as a pie.",
        )
    path = find(context.directory)
    stacks = environments(path, environment)
    now = estimate(stacks, book())
    if picture is not None:
        write_file(picture, pictures.picture(now).encode())
        context.printer.say(f"The picture is {picture}.")
    if compare:
        _compare(context, stacks, output)
    elif revision is not None:
        _diff(context, path, revision, environment, now, output)
    else:
        _report(context, stacks, now, output)


def _report(context: Context, stacks: Sequence[LoadedStack], now: Estimate, output: str) -> None:
    from lapwing.cost import report
    from lapwing.cost.book import book
    from lapwing.cost.change import levers

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
        printer.say("It runs on a machine of your own. `lapwing cost --help` tells more.")
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
        printer.table(("WHAT WOULD SAVE MONEY", "A MONTH"), saved)
    printer.data("")
    printer.data(f"{now.environment}: {report.sentence(now)}")
    _tell(context, now, budget)


def _tell(context: Context, now: Estimate, budget: float | None) -> None:
    """What is behind the figures, on stderr."""
    from lapwing.cost.report import source_lines

    for told in source_lines(now.lines):
        context.printer.say(told, style="dim")
    for note in now.notes:
        context.printer.say(note, style="dim")
    for line in now.unknown:
        context.printer.say(f"{line.item}: unknown; {line.note}", style="dim")
    for line in now.lines:
        if "Autopilot" in line.note and line.item.endswith(": vCPU"):
            context.printer.say(f"{line.part}: {line.note}", style="dim")
    if now.unstated:
        context.printer.say(f"Not stated, so not counted: {', '.join(now.unstated)}.", style="dim")
    if budget is not None and float(now.high) > budget:
        how = "is" if float(now.low) > budget else "may be"
        context.printer.say(f"This {how} over the budget of {budget:,.2f}.", style="yellow")


def _budget(stacks: Sequence[LoadedStack]) -> float | None:
    """The budgets of the environments together; None if one has none."""
    given = [s.settings.budget for s in stacks]
    known = [b for b in given if b is not None]
    return sum(known) if known and len(known) == len(given) else None


def _compare(context: Context, stacks: Sequence[LoadedStack], output: str) -> None:
    from lapwing.cost import report
    from lapwing.cost.book import book
    from lapwing.cost.compare import compare
    from lapwing.errors import UsageError

    found = compare(stacks, book())
    if not found:
        raise UsageError(
            "No environment of this stack is in a cloud.",
            hint="Add one with `target: kubernetes` and `cloud: {provider: gcp, region: ...}`.",
        )
    if output == "json":
        context.printer.json([report.as_data(e) for e in found])
        return
    cells = [
        (e.environment, report.money(e.low), report.money(e.high), _unknowns(e)) for e in found
    ]
    if output == "markdown":
        header = ("Where", "Low", "High", "Unknown")
        context.printer.data(report.table(header, cells, right=(1, 2)).rstrip("\n"))
        return
    context.printer.table(("WHERE", "LOW", "HIGH", "UNKNOWN"), cells)
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
    from lapwing.cost.difference import difference

    before = _before(context, path, revision, environment)
    changes = difference(before, after)
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
            f"{more} US dollars a month: {report.span(before.low, before.high)} at {revision}, "
            f"{report.span(after.low, after.high)} now."
        )
        if told := report.unknowns(before, after):
            context.printer.say(told, style="dim")


def _before(context: Context, path: Path, revision: str, environment: str | None) -> Estimate:
    """The estimate of the stack file at a revision. An environment that was not there then cost
    nothing."""
    from lapwing.build.source import file_at
    from lapwing.cost.book import book
    from lapwing.cost.estimate import estimate
    from lapwing.cost.lines import Estimate
    from lapwing.errors import SourceError, StackFileError
    from lapwing.stack.load import environments, names

    content = file_at(path, revision, context.settings.environ)
    with tempfile.TemporaryDirectory(prefix="lapwing-cost-") as folder:
        old = Path(folder) / path.name
        old.write_bytes(content)
        try:
            if environment is not None and environment not in names(old):
                return Estimate(environment, ())
            return estimate(environments(old, environment, folders=False), book())
        except StackFileError as error:
            told = "\n".join(f"{p.where.line or 1}: {p.message}" for p in error.problems)
            raise SourceError(
                f"The stack file at {revision} is not right, so it cannot be compared.",
                detail=told,
                hint="Compare with a revision whose file `lapwing check` accepts.",
            ) from error
