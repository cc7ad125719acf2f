"""`lapwing release`: the next version, from git's history to the forge.

The token comes from LAPWING_FORGE_TOKEN (or GITEA_TOKEN, GITHUB_TOKEN); it is in no argument.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli.context import Context, output_option
from lapwing.cli.output import Printer, describe
from lapwing.cli.transfer import transfer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapwing.release.plan import Result
    from lapwing.release.policy import Decision, Policy
    from lapwing.release.workflow import Report

POLICIES = ("feature-merge", "conventional-commits", "stated")
_STYLES = {"done": "green", "planned": "blue", "failed": "red"}


@click.command("release")
@click.option("--dry-run", "dry", is_flag=True, help="Tell what would happen; change nothing.")
@click.option(
    "--policy",
    type=click.Choice(POLICIES),
    help="How the version is chosen, instead of what the file says.",
)
@output_option
@click.pass_obj
def command(context: Context, dry: bool, policy: Policy | None) -> int:
    """Release this commit: choose the version, tag it, publish it with its files.

    Every step looks first, so a release that broke off is completed by running it again. Nothing is
    released if only documentation changed since the last version. Exit status: 0 released, or
    nothing to release; 1 it could not be.
    """
    from lapwing.commands import release
    from lapwing.release.run import ReleaseStopped

    prepared = release.prepare(context.settings, context.directory, policy)
    told = _Told(context.printer, dry, quiet=context.for_programs)
    for hint in prepared.survey.hints:
        context.printer.say(hint, style="dim")

    async def act() -> Report:
        with transfer(context.printer, quiet=context.for_programs) as progress:
            return await release.perform(
                context.settings, prepared, progress, dry=dry, tell=told.step, decided=told.decision
            )

    try:
        report = asyncio.run(act())
        results, error = report.results, None
    except ReleaseStopped as stopped:
        results, error = stopped.results, stopped.error
    if context.for_programs and told.decided is not None:
        answer = _answer(told.decided, results)
        context.printer.json(answer | (describe(error) if error else {}))
    elif error is not None and not dry:
        raise error
    failed = any(result.outcome == "failed" for result in results)
    if failed and dry:
        context.printer.say("It could not be released like this.", style="red")
    return (error.exit_status if error else 1) if failed else 0


@dataclass(slots=True)
class _Told:
    """Tells people what is decided and done, when it is."""

    printer: Printer
    dry: bool
    quiet: bool
    decided: Decision | None = field(default=None)

    def decision(self, decision: Decision) -> None:
        """The version, or why there is none."""
        self.decided = decision
        if self.quiet:
            return
        if decision.next is None:
            self.printer.data(f"nothing to release after {decision.previous.tag}")
        else:
            self.printer.data(f"{decision.previous.tag} -> {decision.next.tag}  {decision.bump}")
        self.printer.say(decision.reason)

    def step(self, result: Result) -> None:
        """One step."""
        if self.quiet:
            return
        printer, outcome = self.printer, str(result.outcome)
        painted = printer.paint(f"{outcome:<8}", _STYLES.get(outcome, "dim"))
        printer.data(f"  {painted} {result.name}{': ' if result.note else ''}{result.note}")


def _answer(decision: Decision, results: Sequence[Result]) -> dict[str, Any]:
    """The answer for programs."""
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
