"""`lapwing abort`: stop a deployment in flight."""

from __future__ import annotations

import click

from lapwing.cli.context import Context, environment_option, output_option


@click.command("abort")
@environment_option
@output_option
@click.pass_obj
def command(context: Context, environment: str) -> int:
    """Stop the deployment in flight; what served before goes on serving."""
    from lapwing import wiring
    from lapwing.acts import change
    from lapwing.cli import rolling, target

    where = target.where(context, environment)
    actor = wiring.actor(context.settings, context.directory)
    repository = wiring.desired(context.settings)
    act = change.abort(repository, target.present(context, where), where, actor)
    return rolling.carry_out(context, where, act)
