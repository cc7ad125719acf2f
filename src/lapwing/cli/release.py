"""`lapwing release`: the next version, from git's history to the forge.

The token comes from LAPWING_FORGE_TOKEN (or GITEA_TOKEN, GITHUB_TOKEN); it is never an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli.context import Context
from lapwing.cli.options import output_option
from lapwing.cli.output import Printer, describe
from lapwing.cli.transfer import transfer
from lapwing.errors import LapwingError

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
    import asyncio

    from lapwing.commands import release
    from lapwing.release.run import ReleaseStopped

    printer, quiet = context.printer, context.for_programs
    reporter = _Reporter(printer, quiet)

    async def run() -> None:
        with transfer(printer, quiet=quiet) as progress:
            await release.release(
                context.settings, context.directory, policy, progress, reporter, dry_run=dry_run
            )

    error: LapwingError | None = None
    try:
        asyncio.run(run())
    except ReleaseStopped as stopped:
        error = stopped.error
    except LapwingError as failed:
        if not reporter.several:
            raise
        error = failed
    if quiet:
        printer.json(reporter.to_json() | (describe(error, printer.mask) if error else {}))
    elif error is not None and (reporter.several or not dry_run):
        raise error
    elif error is not None:
        printer.say("The release would fail.", style="red")
    return error.exit_status if error else 0


@dataclass(slots=True)
class _Project:
    """What was reported of a project: the last decision, and the steps after it."""

    name: str
    decision: Decision | None = None
    steps: list[StepResult] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        decision = self.decision
        if decision is None:
            return {}
        return {
            "previous": decision.previous.tag,
            "bump": decision.bump,
            "tag": decision.next.tag if decision.next else None,
            "skipped": decision.skipped,
            "reason": decision.reason,
            "steps": [
                {"name": result.name, "outcome": result.outcome, "note": result.note}
                for result in self.steps
            ],
        }


@dataclass(slots=True)
class _Reporter:
    """Prints a release as text, and collects it for `--json`."""

    printer: Printer
    quiet: bool
    several: bool = False
    projects: list[_Project] = field(default_factory=list)

    def begin(self, project: str, *, several: bool) -> None:
        self.several = several
        self.projects.append(_Project(project))

    def decided(self, decision: Decision, hints: Sequence[str]) -> None:
        project = self.projects[-1]
        if project.decision is not None and not self.quiet:
            self.printer.say("Another job created the version first.")
        project.decision, project.steps = decision, []
        for hint in hints:
            self.printer.say(hint, style="dim")
        if not self.quiet:
            _print_decision(self.printer, decision)

    def step(self, result: StepResult) -> None:
        self.projects[-1].steps.append(result)
        if not self.quiet:
            _print_step(self.printer, result)

    def to_json(self) -> dict[str, Any]:
        """Return the release; of several projects a summary, and each of them in `projects`."""
        each = [(project.name, project.to_json()) for project in self.projects if project.decision]
        if not self.several:
            return each[0][1] if each else {}
        steps = [
            step | {"name": f"{name}: {step['name']}"}
            for name, found in each
            for step in found["steps"]
        ]
        tags = [found["tag"] for _, found in each if found["tag"]]
        return {
            "previous": None,
            "bump": None,
            "tag": None,
            "skipped": not tags,
            "reason": ", ".join(tags) or "There is nothing to release in any project.",
            "steps": steps,
            "projects": [{"name": name} | found for name, found in each],
        }


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
