"""`lapwing review`: report over-engineering, risks and over-provisioning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.cli.options import environments_option, output_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapwing.review.finding import Finding, Rehearsals
    from lapwing.review.sizing import Measurements
    from lapwing.stack.load import LoadedStack

_STYLES = {"critical": "red", "warning": "yellow", "info": "blue"}


@click.command("review")
@environments_option
@click.option(
    "--measured",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Measured usage (JSON) for right-sizing. Default: measurements of this machine's agent.",
)
@click.option(
    "--fail-on",
    type=click.Choice(["info", "warning", "critical"]),
    help="Exit with status 1 if there is a finding of this severity or above.",
)
@output_option
@click.pass_obj
def command(
    context: Context, environment: str | None, measured: Path | None, fail_on: str | None
) -> int:
    """Report over-engineering, risks and over-provisioning, with evidence and advice."""
    from lapwing.cost.book import book
    from lapwing.review.finding import Severity
    from lapwing.review.review import review
    from lapwing.stack import source
    from lapwing.stack.load import environments, find

    path = find(context.directory)
    stacks = environments(path, environment)
    known = _measurements_of(measured) if measured is not None else _measured_here(context, stacks)
    rehearsals = _rehearsals_here(context, stacks)
    findings = review(stacks, source.read(path), book(), known, rehearsals=rehearsals)
    if context.for_programs:
        context.printer.json([finding.as_data() for finding in findings])
    else:
        for finding in findings:
            _print(context, finding)
        counts = [(s, sum(1 for f in findings if f.severity is s)) for s in reversed(Severity)]
        context.printer.say(", ".join(f"{count} {severity}" for severity, count in counts) + ".")
    limit = Severity[fail_on.upper()] if fail_on else None
    return 1 if limit is not None and any(f.severity >= limit for f in findings) else 0


def _print(context: Context, finding: Finding) -> None:
    from lapwing.cost.report import money

    printer, severity = context.printer, str(finding.severity)
    scope = "" if finding.environment == "all" else f" ({finding.environment})"
    printer.data(f"{printer.paint(severity, _STYLES[severity])}: {finding.rule}{scope}")
    printer.data(f"  {finding.evidence}")
    printer.data(f"  {finding.advice}")
    if finding.saves is not None:
        verb = "saves" if finding.saves >= 0 else "costs"
        printer.data(f"  This {verb} {money(abs(finding.saves))} US dollars per month.")


def _measurements_of(path: Path) -> Measurements:
    from lapwing.errors import UsageError
    from lapwing.review.sizing import measurements

    try:
        return measurements(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UsageError(f"The file {path} does not exist.") from None
    except OSError as error:
        raise UsageError(f"Cannot read {path}: {error.strerror or error}.") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not valid JSON.", hint=str(error)) from None


def _measured_here(context: Context, stacks: Sequence[LoadedStack]) -> Measurements:
    """Read what this machine's agent measured: in the environment, else in `local`."""
    from lapwing.observed import usage
    from lapwing.review.sizing import Measured
    from lapwing.stack.load import LOCAL

    def measured(stack: str, environment: str, source: str | None) -> dict[str, Measured]:
        read = usage.read(context.settings.environment(stack, environment))
        found = {name: usage.summary(service) for name, service in read.services.items()}
        return {
            name: Measured(s.cpu, s.memory, s.hours, s.rate, source)
            for name, s in found.items()
            if s is not None
        }

    known: dict[str, dict[str, Measured]] = {}
    for each in stacks:
        stack, name = each.stack.stack, each.environment
        own = measured(stack, name, None)
        known[name] = own or measured(stack, LOCAL, LOCAL)
    return known


def _rehearsals_here(context: Context, stacks: Sequence[LoadedStack]) -> Rehearsals:
    """Read when a backup was last restored or verified, of environments with backups here."""
    from datetime import UTC, date, datetime

    from lapwing.errors import LapwingError
    from lapwing.targets.machine import MachineTarget

    known: dict[str, date | None] = {}
    for each in stacks:
        if each.settings.target != "machine" or each.settings.host is not None:
            continue
        try:
            target = context.target(each.environment)
            if not isinstance(target, MachineTarget):
                continue
            backups = target.backups()
            made = backups.known()
        except LapwingError:  # Nothing was deployed here, or the desired state is damaged.
            continue
        if made:
            last = backups.last_rehearsal()
            day = None if last is None else datetime.fromtimestamp(last, UTC).date()
            known[each.environment] = day
    return known
