"""`lapwing deploy`: build what changed and release it without dropping a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lapwing.cli import complete
from lapwing.cli.options import change_target, image_option

if TYPE_CHECKING:
    from lapwing.targets.base import DeployResult, Target


@click.command("deploy")
@click.argument("services", nargs=-1, shell_complete=complete.services)
@click.option("--hold", is_flag=True, help="Pause before the switch, until `lapwing promote`.")
@image_option
@click.option(
    "--allow-downtime",
    is_flag=True,
    help="Allow a short outage for the offline migration of a service.",
)
@click.option(
    "--backup",
    metavar="COMMAND",
    help="For such an upgrade: the command that makes a backup and prints its name last.",
)
@click.option(
    "--restore",
    metavar="COMMAND",
    help="With --backup: the command that restores the backup named in $LAPWING_BACKUP.",
)
@click.option("--dry-run", is_flag=True, help="Build and show what would change; change nothing.")
@change_target
def command(target: Target, services: tuple[str, ...], **options: Any) -> DeployResult:
    """Build SERVICES (all by default) and deploy what changed.

    For a cluster, images are built, and pushed to `registry` or loaded into kind or minikube.

    Exit status: 0 deployed (or paused), 1 rejected or rolled back, 2 an invalid stack file,
    130 interrupted: a deployment that is committed continues in the background.
    """
    from lapwing.targets.base import DeployRequest

    return target.deploy(DeployRequest(services, **options))
