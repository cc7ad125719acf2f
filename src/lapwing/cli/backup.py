"""`lapwing backup`: make, list and verify backups of an environment on a machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TextIO

import click

from lapwing.cli.context import Context
from lapwing.cli.options import environment_option, identity_option, output_option
from lapwing.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapwing.agent.backup_manifest import Manifest
    from lapwing.targets.machine import MachineTarget


@click.command("backup")
@click.argument(
    "action", type=click.Choice(["create", "list", "verify"]), default="create", required=False
)
@click.argument("backup", required=False)
@environment_option
@identity_option
@output_option
@click.pass_obj
def command(
    context: Context,
    action: Literal["create", "list", "verify"],
    backup: str | None,
    environment: str,
    identity: TextIO | None,
) -> int:
    """Back up the databases and volumes of an environment on a machine.

    ACTION is `create` (default), `list` or `verify`; `verify` restores BACKUP (default: the newest)
    into a scratch folder and checks it. Services keep running. MongoDB in containers, mongod,
    and databases at a URL are not backed up; the output lists them.
    """
    from lapwing.cli import present
    from lapwing.commands import backup as commands

    if backup is not None and action != "verify":
        raise UsageError(f"`lapwing backup {action}` takes no BACKUP.")
    target = machine(context, environment)
    backups = target.backups(identity.read() if identity else None)
    if action == "verify":
        found = backups.find(backup)
        with context.printer.working("verifying"):
            results = list(commands.verify(backups, found))
        _show_left_out(context, found)
        return present.checks(context, results, backup=found.id)
    if action == "list":
        _show(context, backups.list(), environment)
        return 0
    context.prepare_home()
    status = target.read_status()
    with context.printer.working("backing up"):
        made = backups.create(status.commit if status else None)
    if context.for_programs:
        _show(context, [made], environment)
    else:
        names = ", ".join(p.name for p in made.parts)
        context.printer.say(f"Backed up {names} to {backups.store.place}/{made.id}.", style="green")
        context.printer.data(made.id)
    _show_left_out(context, made)
    return 0


def machine(context: Context, environment: str) -> MachineTarget:
    """Return an environment on a machine. Raises UsageError for one on a cluster."""
    from lapwing.targets.machine import MachineTarget

    target = context.target(environment)
    if not isinstance(target, MachineTarget):
        raise UsageError(
            f"Lapwing backs up environments on machines; {environment} is on a cluster.",
            hint="Use snapshots of its volumes, or the backups of the managed database.",
        )
    return target


def _show_left_out(context: Context, made: Manifest) -> None:
    for part in made.left_out:
        context.printer.say(f"NOT backed up: {part.name}, {part.reason}.", style="yellow")


def _show(context: Context, found: Sequence[Manifest], environment: str) -> None:
    import msgspec

    if context.for_programs:
        context.printer.json(msgspec.to_builtins(found))
    elif not found:
        context.printer.say(f"There is no backup yet. Run `lapwing backup -e {environment}`.")
    else:
        rows = [
            (
                m.id,
                (m.commit or "-")[:12],
                f"{sum(p.bytes for p in m.parts) / 2**20:.1f} MiB",
                ", ".join(p.name for p in m.parts),
            )
            for m in found
        ]
        context.printer.table(("BACKUP", "COMMIT", "SIZE", "CONTENT"), rows)
