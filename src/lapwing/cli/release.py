"""`lapwing release`: the next version, from git's history to the forge.

The token comes from LAPWING_FORGE_TOKEN (or GITEA_TOKEN, GITHUB_TOKEN); it is never an argument.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli.context import Context
from lapwing.cli.options import output_option
from lapwing.cli.output import Printer, describe
from lapwing.cli.transfer import transfer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapwing.release.policy import Decision, Policy
    from lapwing.release.run import StepResult

POLICIES = ("feature-merge", "conventional-commits", "stated")
_STYLES = {"done": "green", "planned": "blue", "failed": "red"}


@click.command("release")
@click.option("--dry-run", is_flag=True, help="Show the steps without running them.")
@click.option(
    "--policy",
    type=click.Choice(POLICIES),
    help="How to choose the version. Default: `release: {policy}` of the stack file.",
)
@output_option
@click.pass_obj
def command(context: Context, dry_run: bool, policy: Policy | None) -> int:
    """Release the current commit: choose the version, tag it, publish it with its files.

    Each step checks first, so an interrupted release is completed by running the command again.
    Nothing is released if only documentation changed since the last version. Exit status: 0 if
    released or nothing to release, 1 if the release failed.
    """
    from lapwing.commands import release
    from lapwing.release.run import ReleaseStopped

    printer, quiet = context.printer, context.for_programs
    reporter = _Reporter(printer, quiet)

    async def run() -> list[StepResult]:
        with transfer(printer, quiet=quiet) as progress:
            return await release.release(
                context.settings, context.directory, policy, progress, reporter, dry_run=dry_run
            )

    try:
        results, error = asyncio.run(run()), None
    except ReleaseStopped as stopped:
        results, error = stopped.results, stopped.error
    if quiet:
        answer = _to_json(reporter.decision, results) if reporter.decision else {}
        printer.json(answer | (describe(error, printer.mask) if error else {}))
    elif error is not None and not dry_run:
        raise error
    failed = any(result.outcome == "failed" for result in results)
    if failed and dry_run:
        printer.say("The release would fail.", style="red")
    return (error.exit_status if error else 1) if failed else 0


@dataclass(slots=True)
class _Reporter:
    """Prints a release for people. `decision` is the last one."""

    printer: Printer
    quiet: bool
    decision: Decision | None = None

    def decided(self, decision: Decision, hints: Sequence[str]) -> None:
        if self.decision is not None and not self.quiet:
            self.printer.say("Another job created the version first.")
        self.decision = decision
        for hint in hints:
            self.printer.say(hint, style="dim")
        if not self.quiet:
            _print_decision(self.printer, decision)

    def step(self, result: StepResult) -> None:
        if not self.quiet:
            _print_step(self.printer, result)


def _print_decision(printer: Printer, decision: Decision) -> None:
    if decision.next is None:
        printer.data(f"nothing to release after {decision.previous.tag}")
    else:
        printer.data(f"{decision.previous.tag} -> {decision.next.tag}  {decision.bump}")
    printer.say(decision.reason)


def _print_step(printer: Printer, result: StepResult) -> None:
    outcome = str(result.outcome)
    painted = printer.paint(f"{outcome:<8}", _STYLES.get(outcome, "dim"))
    printer.data(f"  {painted} {result.name}{': ' if result.note else ''}{result.note}")


def _to_json(decision: Decision, results: Sequence[StepResult]) -> dict[str, Any]:
    return {
        "previous": decision.previous.tag,
        "bump": decision.bump,
        "tag": decision.next.tag if decision.next else None,
        "skipped": decision.skipped,
        "reason": decision.reason,
        "steps": [
            {"name": result.name, "outcome": result.outcome, "note": result.note}
            for result in results
        ],
    }
