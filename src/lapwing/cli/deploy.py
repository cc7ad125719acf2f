"""`lapwing deploy`: build what changed and release it without dropping a request."""

from __future__ import annotations

from typing import Any

import click

from lapwing.cli import place
from lapwing.cli.context import (
    Context,
    complete_services,
    environment_option,
    image_option,
    output_option,
)
from lapwing.cli.place import Reach, Wish


@click.command("deploy")
@click.argument("services", nargs=-1, shell_complete=complete_services)
@environment_option
@click.option("--hold", is_flag=True, help="Stop before the switch; `lapwing promote` goes on.")
@image_option
@click.option(
    "--allow-downtime",
    is_flag=True,
    help="On a cluster: upgrade a service with an offline migration, with a short outage.",
)
@click.option(
    "--backup",
    metavar="COMMAND",
    help="For such an upgrade: make the backup by this command, which prints its name last.",
)
@click.option(
    "--restore",
    metavar="COMMAND",
    help="With --backup: put the backup that $LAPWING_BACKUP names back.",
)
@click.option("--dry-run", is_flag=True, help="Build, and tell what would change; change nothing.")
@place.reach_options
@output_option
@click.pass_obj
def command(
    context: Context,
    /,
    services: tuple[str, ...],
    environment: str,
    cluster: str | None,
    yes: bool,
    images: dict[str, str],
    **wish: Any,
) -> int:
    """Build SERVICES (all by default) and release what changed.

    Exit status: 0 deployed (or held), 1 rejected or rolled back, 2 an invalid stack file,
    130 interrupted: a deployment that was committed goes on.
    """
    return run(context, environment, Wish(services, images, **wish), Reach(cluster, yes))


def run(context: Context, environment: str, wish: Wish, reach: Reach) -> int:
    """Deploy; returns the exit status. Shared with `up`."""
    from lapwing.stack.load import find, load

    loaded = load(find(context.directory), environment)
    return place.of(context, environment, reach).deploy(loaded, wish)
