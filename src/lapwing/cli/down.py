"""`lapwing down`: stop a stack; its data stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lapwing.cli.options import change_target

if TYPE_CHECKING:
    from lapwing.targets.base import DeployResult, Target


@click.command("down")
@click.option(
    "--volumes",
    is_flag=True,
    help="On a cluster: remove the data and the generated secrets as well.",
)
@click.option(
    "--cluster",
    "whole_cluster",
    is_flag=True,
    help="Remove the local cluster (kind, minikube) as well.",
)
@change_target
def command(target: Target, volumes: bool, whole_cluster: bool) -> DeployResult:
    """Stop the stack; its data stays, and `lapwing up` starts it again."""
    from lapwing.targets.base import DownRequest

    return target.down(DownRequest(volumes, whole_cluster))
