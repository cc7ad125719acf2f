"""`lapwing abort`: stop a deployment in flight."""

from __future__ import annotations

import click

from lapwing.cli.cluster import context_option, yes_option
from lapwing.cli.context import Context, environment_option, output_option


@click.command("abort")
@environment_option
@context_option
@yes_option
@output_option
@click.pass_obj
def command(context: Context, environment: str, cluster: str | None, yes: bool) -> int:
    """Stop the deployment in flight; what served before goes on serving."""
    from lapwing import wiring
    from lapwing.acts import change
    from lapwing.cli import cluster as on_cluster
    from lapwing.cli import rolling, target

    found = on_cluster.scope_of(context, environment)
    if found is not None:
        from lapwing.runtime.cluster import actions

        return on_cluster.act(context, cluster, found[0], "abort", actions.abort, yes=yes)
    where = target.where(context, environment)
    actor = wiring.actor(context.settings, context.directory)
    repository = wiring.desired(context.settings)
    act = change.abort(repository, target.present(context, where), where, actor)
    return rolling.carry_out(context, where, act)
