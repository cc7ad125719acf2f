"""`lapwing verify`: a checklist of a running stack, from the outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.cli.options import read_target

if TYPE_CHECKING:
    from lapwing.targets.base import Target


@click.command("verify")
@read_target
def command(context: Context, target: Target) -> int:
    """Check a running stack from the outside.

    Exit status: 1 if a check fails or, on a cluster, cannot be made.
    """
    from lapwing.cli import present
    from lapwing.commands.verify import verify

    return present.checks(context, verify(target))
