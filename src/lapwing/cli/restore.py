"""`lapwing restore`: restore a database or a volume from a backup."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

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
    from lapwing.targets.argocd import ArgoCDTarget
    from lapwing.targets.kubernetes import KubernetesTarget


@click.command("restore")
@click.argument("name")
@click.argument("backup", required=False)
@environment_option
@context_option
@identity_option
@click.option("--yes", is_flag=True, help="Do not ask before the data is replaced.")
@output_option
@click.pass_obj
def command(
    context: Context,
    name: str,
    backup: str | None,
    environment: str,
    cluster: str | None,
    identity: TextIO | None,
    yes: bool,
) -> int:
    """Restore NAME, a resource or a volume, from BACKUP, by default the newest.

    The environment is stopped during the restore. The data from before the restore is kept: on a
    machine as a folder, on Kubernetes as another backup. The same command completes an interrupted
    restore. Managed databases are restored by their cloud.
    """
    from lapwing.cli import present
    from lapwing.commands.backup import find_part, restore
    from lapwing.targets.argocd import ArgoCDTarget
    from lapwing.targets.base import ClusterOptions
    from lapwing.targets.kubernetes import KubernetesTarget
    from lapwing.targets.machine import MachineTarget

    target = context.target(environment, ClusterOptions(cluster, yes=yes))
    if isinstance(target, KubernetesTarget | ArgoCDTarget):
        return _on_cluster(context, target, name, backup, identity)
    assert isinstance(target, MachineTarget)
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
        start = f"lapwing deploy -e {target.ref.environment}"
        context.printer.say(f"{target.ref} is stopped. Start it with `{start}`.")
        return 0
    return present.deploy_result(context, result)


def _on_cluster(
    context: Context,
    target: KubernetesTarget | ArgoCDTarget,
    name: str,
    backup: str | None,
    identity: TextIO | None,
) -> int:
    import msgspec

    from lapwing.targets.cluster_restores import ClusterRestores

    refuse_identity(identity)
    context.prepare_home()
    restored, result = ClusterRestores(target).restore(name, backup)
    context.printer.say(f"Restored {name} from {restored.backup}.", style="green")
    context.printer.say(f"The data from before the restore is in the backup {restored.saved}.")
    if context.for_programs:
        context.printer.json(msgspec.to_builtins(result))
    return 0
