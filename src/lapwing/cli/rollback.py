"""`lapwing rollback`: go back to an earlier release."""

from __future__ import annotations

import click

from lapwing.cli import place
from lapwing.cli.context import Context, complete_services, environment_option, output_option
from lapwing.cli.place import Reach


@click.command("rollback")
@click.argument("services", nargs=-1, shell_complete=complete_services)
@environment_option
@click.option("--to", "release", metavar="RELEASE", help="The release to go back to.")
@place.reach_options
@output_option
@click.pass_obj
def command(
    context: Context,
    services: tuple[str, ...],
    environment: str,
    release: str | None,
    cluster: str | None,
    yes: bool,
) -> int:
    """Go back to the deployment before, for SERVICES or for all.

    While the old slot is warm this is a change of route: nothing is booted, pulled or built.
    """
    return place.of(context, environment, Reach(cluster, yes)).rollback(services, release)
