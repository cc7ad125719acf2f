"""`lapwing status`: running services and deployments in progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.cli.options import read_target

if TYPE_CHECKING:
    from lapwing.targets.base import Target


@click.command("status")
@read_target
def command(context: Context, target: Target) -> int:
    """Show running services and deployments in progress.

    Exit status: 0 if every service runs as desired, 1 if one does not.
    """
    from lapwing.cli import present

    return present.status(context, target.status())
