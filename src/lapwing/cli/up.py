"""`lapwing up`: from a folder to a URL."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import enter
from lapwing.cli.options import change_target, image_option

if TYPE_CHECKING:
    from lapwing.targets.base import DeployResult, Target


@click.command("up")
@click.argument(
    "directory",
    required=False,
    type=click.Path(path_type=Path),
    expose_value=False,
    callback=enter,
)
@image_option
@click.option(
    "--create", is_flag=True, help="Create the local cluster (kind, minikube) if it is missing."
)
@change_target
def command(target: Target, images: dict[str, str]) -> DeployResult:
    """Start what is needed, deploy every service of the stack in DIRECTORY, print the URL."""
    from lapwing.targets.base import DeployRequest

    return target.deploy(DeployRequest(images=images, verb="up"))
