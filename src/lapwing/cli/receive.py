"""`lapwing receive`: the forced command of SSH keys on a server; people never call it."""

from __future__ import annotations

import os

import click

from lapwing.cli.context import Context


@click.command("receive", hidden=True)
@click.option("--only", metavar="STACK/ENVIRONMENT", help="Allow deployments of this only.")
@click.pass_obj
def command(context: Context, only: str | None) -> int:
    """Run what SSH_ORIGINAL_COMMAND asks for."""
    from lapwing.server import receive

    asked = os.environ.get("SSH_ORIGINAL_COMMAND", "")
    limit = receive.Limit.parse(only) if only else None
    return receive.receive(asked, context.settings, limit)
