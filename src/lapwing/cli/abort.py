"""`lapwing abort`: stop a deployment in flight."""

from __future__ import annotations

import click

from lapwing.cli import place
from lapwing.cli.context import Context, environment_option, output_option
from lapwing.cli.place import Reach


@click.command("abort")
@environment_option
@place.reach_options
@output_option
@click.pass_obj
def command(context: Context, environment: str, cluster: str | None, yes: bool) -> int:
    """Stop the deployment in flight; what served before goes on serving."""
    return place.of(context, environment, Reach(cluster, yes)).abort()
