"""`lapwing history`: the deployments, newest first, and what became of each."""

from __future__ import annotations

import click
import msgspec

from lapwing.cli import place, target
from lapwing.cli.context import Context, environment_option, output_option


@click.command("history")
@environment_option
@click.option("-n", "--limit", default=20, show_default=True, help="How many deployments to list.")
@output_option
@click.pass_obj
def command(context: Context, environment: str, limit: int) -> None:
    """List the deployments, newest first."""
    entries = place.of(context, environment).history(limit)
    if context.for_programs:
        context.printer.json(msgspec.to_builtins(entries))
        return
    if not entries:
        raise target.never_deployed(target.where(context, environment))
    rows = [
        (e.commit[:12], e.time.replace("T", " ").rstrip("Z"), e.actor, e.outcome, e.message)
        for e in entries
    ]
    context.printer.table(("COMMIT", "TIME (UTC)", "ACTOR", "OUTCOME", "MESSAGE"), rows)
    for entry in entries[:1]:
        if entry.reason and entry.outcome not in ("succeeded", "in-progress"):
            context.printer.say(f"The newest {entry.outcome}: {entry.reason}")
