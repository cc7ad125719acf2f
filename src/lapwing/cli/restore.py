"""`lapwing restore`: restore a database or a volume from a backup."""

from __future__ import annotations

import sys
from typing import TextIO

import click

from lapwing.cli.backup import on_machine
from lapwing.cli.context import Context
from lapwing.cli.options import environment_option, identity_option, output_option
from lapwing.errors import UsageError


@click.command("restore")
@click.argument("name")
@click.argument("backup", required=False)
@environment_option
@identity_option
@click.option("--yes", is_flag=True, help="Do not ask before the data is replaced.")
@output_option
@click.pass_obj
def command(
    context: Context,
    name: str,
    backup: str | None,
    environment: str,
    identity: TextIO | None,
    yes: bool,
) -> int:
    """Restore NAME, a resource or a volume, from BACKUP, by default the newest.

    The environment is stopped during the restore. The data from before the restore is kept.
    """
    from lapwing.cli import present
    from lapwing.commands.backup import find_part, restore

    target = on_machine(context.target(environment))
    backups = target.backups(identity.read() if identity else None)
    manifest = backups.find(backup)
    part = find_part(manifest, name)
    question = f"Stop {target.ref} and replace the data of {name} with backup {manifest.id}?"
    if not yes and not (sys.stdin.isatty() and click.confirm(question, err=True)):
        raise UsageError(
            f"`{name}` was not replaced: the restore was not confirmed.",
            hint="Run the command again with `--yes`.",
        )
    result = restore(target, backups, manifest, part)
    context.printer.say(f"Restored {name} from {manifest.id}.", style="green")
    if result.outcome == "unchanged" and not context.for_programs:
        return 0
    return present.deploy_result(context, result)
