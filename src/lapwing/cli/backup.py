"""`lapwing backup`: make, list and verify backups of an environment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TextIO

import click

from lapwing.cli.context import Context
from lapwing.cli.options import (
    context_option,
    environment_option,
    identity_option,
    output_option,
    refuse_identity,
)
from lapwing.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapwing.agent.backup_manifest import Manifest
    from lapwing.commands.backup import MachineBackups
    from lapwing.targets.base import Target
    from lapwing.targets.cluster_backups import ClusterBackups


@click.command("backup")
@click.argument(
    "action", type=click.Choice(["create", "list", "verify"]), default="create", required=False
)
@click.argument("backup", required=False)
@environment_option
@context_option
@click.option("--yes", is_flag=True, help="On a cluster: do not ask for confirmation.")
@identity_option
@output_option
@click.pass_obj
def command(
    context: Context,
    action: Literal["create", "list", "verify"],
    backup: str | None,
    environment: str,
    cluster: str | None,
    yes: bool,
    identity: TextIO | None,
) -> int:
    """Back up the databases and volumes of an environment.

    ACTION is `create` (default), `list` or `verify`; `verify` restores BACKUP (default: the newest)
    into a scratch folder, on Kubernetes in a new pod, and checks it. Services keep running. On a
    machine, databases at a URL are not backed up; the output lists them. On Kubernetes, only the
    databases in the cluster are backed up.
    """
    from lapwing.cli import present
    from lapwing.targets.base import ClusterOptions

    if backup is not None and action != "verify":
        raise UsageError(f"`lapwing backup {action}` takes no BACKUP.")
    target = context.target(environment, ClusterOptions(cluster, yes=yes))
    backups = _backups(target, identity)
    if action == "verify":
        with context.printer.working("verifying"):
            found = backups.find(backup)
            results = list(backups.verify(found))
        _show_left_out(context, found)
        return present.checks(context, results, backup=found.id)
    if action == "list":
        _show(context, backups.list(), environment)
        return 0
    context.prepare_home()
    with context.printer.working("backing up"):
        made = backups.create()
    if context.for_programs:
        _show(context, [made], environment)
    else:
        names = ", ".join(p.name for p in made.parts)
        context.printer.say(f"Backed up {names} to {backups.place}/{made.id}.", style="green")
        context.printer.data(made.id)
    _show_left_out(context, made)
    return 0


def _backups(target: Target, identity: TextIO | None) -> MachineBackups | ClusterBackups:
    from lapwing.targets.argocd import ArgoCDTarget
    from lapwing.targets.cluster_backups import ClusterBackups
    from lapwing.targets.kubernetes import KubernetesTarget

    if not isinstance(target, KubernetesTarget | ArgoCDTarget):
        from lapwing.commands.backup import MachineBackups
        from lapwing.targets.machine import MachineTarget

        assert isinstance(target, MachineTarget)
        return MachineBackups(target, identity.read() if identity else None)
    refuse_identity(identity)
    return ClusterBackups(target.cluster)


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
