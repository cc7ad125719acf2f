"""`lapwing history`: the deployments, newest first, and the outcome of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.cli.options import read_target

if TYPE_CHECKING:
    from lapwing.targets.base import Target


@click.command("history")
@click.option("-n", "--limit", default=20, show_default=True, help="Number of deployments to list.")
@read_target
def command(context: Context, target: Target, limit: int) -> None:
    """List the deployments, newest first."""
    from lapwing.cli import present

    present.history(context, target.ref, target.history(limit))
