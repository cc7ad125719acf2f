"""`lapwing down`: stop a stack; its data stays."""

from __future__ import annotations

import click

from lapwing.cli import place
from lapwing.cli.context import Context, environment_option, output_option
from lapwing.cli.place import Reach, Removal


@click.command("down")
@environment_option
@click.option(
    "--volumes",
    is_flag=True,
    help="On a cluster: remove the data, too, and the secrets that were made up.",
)
@click.option(
    "--cluster", "whole", is_flag=True, help="Remove the local cluster (kind, minikube) as well."
)
@place.reach_options
@output_option
@click.pass_obj
def command(
    context: Context,
    environment: str,
    volumes: bool,
    whole: bool,
    cluster: str | None,
    yes: bool,
) -> int:
    """Stop the stack; its data stays, and `lapwing up` brings it back."""
    removal = Removal(volumes=volumes, cluster=whole)
    return place.of(context, environment, Reach(cluster, yes)).down(removal)
