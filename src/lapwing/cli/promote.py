"""`lapwing promote`: switch traffic to a paused deployment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lapwing.cli.options import change_target

if TYPE_CHECKING:
    from lapwing.targets.base import DeployResult, Target


@click.command("promote")
@change_target
def command(target: Target) -> DeployResult:
    """Switch traffic to a paused deployment."""
    return target.promote()
