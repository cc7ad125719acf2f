"""`lapwing maintenance`: answer requests with a maintenance page."""

from __future__ import annotations

import click

from lapwing.cli.context import Context
from lapwing.cli.options import environment_option, output_option
from lapwing.errors import UsageError


@click.command("maintenance")
@click.argument("state", type=click.Choice(["on", "off"]))
@click.option(
    "--message", metavar="TEXT", help="Show this text instead of the page of the stack file."
)
@environment_option
@output_option
@click.pass_obj
def command(context: Context, /, state: str, message: str | None, environment: str) -> int:
    """Begin (on) or end (off) maintenance: clients get a page with status 503.

    Maintenance lasts until `off`, also across deployments, restarts and reboots. Services keep
    running; on the machine, they can be reached at the preview address. Requests in progress are
    completed. The stack file sets the page: `maintenance` of the environment.
    """
    from lapwing.cli import present
    from lapwing.targets.machine import MachineTarget

    if message is not None and not message.strip():
        raise click.UsageError("--message has no text.")
    if state == "off" and message is not None:
        raise click.UsageError("--message is for `lapwing maintenance on`.")
    target = context.target(environment)
    if not isinstance(target, MachineTarget):
        raise UsageError(
            f"`lapwing maintenance` is for machines; {target.ref} is on a cluster.",
            hint="Configure a maintenance page in the load balancer. Nothing was changed.",
        )
    context.prepare_home()
    return present.deploy_result(context, target.maintenance(on=state == "on", message=message))
