"""`lapwing up`: from a folder to a URL."""

from __future__ import annotations

from pathlib import Path

import click

from lapwing.cli import place
from lapwing.cli.context import Context, environment_option, image_option, output_option
from lapwing.cli.place import Reach, Wish


@click.command("up")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@environment_option
@image_option
@click.option("--create", is_flag=True, help="Make the local cluster (kind, minikube) if need be.")
@place.reach_options
@output_option
@click.pass_obj
def command(
    context: Context,
    directory: Path | None,
    environment: str,
    images: dict[str, str],
    create: bool,
    cluster: str | None,
    yes: bool,
) -> int:
    """Start what is needed, deploy every service of the stack in DIR, print the URL."""
    from lapwing.cli import deploy

    if directory is not None:
        context.directory = directory
    wish = Wish(images=images, url=True)
    return deploy.run(context, environment, wish, Reach(cluster, yes, create))
