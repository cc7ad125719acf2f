"""`lapwing rollback`: go back to an earlier release."""

from __future__ import annotations

import click

from lapwing.cli.context import Context, complete_services, environment_option, output_option


@click.command("rollback")
@click.argument("services", nargs=-1, shell_complete=complete_services)
@environment_option
@click.option("--to", "release", metavar="RELEASE", help="The release to go back to.")
@output_option
@click.pass_obj
def command(
    context: Context, services: tuple[str, ...], environment: str, release: str | None
) -> int:
    """Go back to the deployment before, for SERVICES or for all.

    While the old slot is warm this is a change of route: nothing is booted, pulled or built.
    """
    from lapwing import wiring
    from lapwing.acts import change
    from lapwing.cli import rolling, target

    remote = target.remote_of(context, environment)
    if remote is not None:
        from lapwing.cli import delivery

        return delivery.rollback(context, remote, environment, services, release)
    where = target.where(context, environment)
    actor = wiring.actor(context.settings, context.directory)
    repository = wiring.desired(context.settings)
    act = change.rollback(repository, where, actor, services=services, release=release)
    return rolling.carry_out(context, where, act)
