"""`lapwing abort`: stop a deployment in progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lapwing.cli.options import change_target

if TYPE_CHECKING:
    from lapwing.targets.base import DeployResult, Target


@click.command("abort")
@change_target
def command(target: Target) -> DeployResult:
    """Stop a deployment in progress and return to the previous release.

    Before the switch, the candidates are stopped. After it, traffic returns to the previous one.
    """
    return target.abort()
