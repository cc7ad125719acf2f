"""`lapwing rollback`: restore an earlier release."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lapwing.cli import complete
from lapwing.cli.options import change_target

if TYPE_CHECKING:
    from lapwing.targets.base import DeployResult, Target


@click.command("rollback")
@click.argument("services", nargs=-1, shell_complete=complete.services)
@click.option(
    "--to",
    "release",
    metavar="RELEASE",
    shell_complete=complete.releases,
    help="The release to restore, or a commit of `lapwing history`.",
)
@change_target
def command(target: Target, services: tuple[str, ...], release: str | None) -> DeployResult:
    """Restore the previous deployment, of SERVICES or of all.

    While the old slot is warm, only the route changes: nothing is started, pulled or built.
    """
    from lapwing.targets.base import RollbackRequest

    return target.rollback(RollbackRequest(services, release))
