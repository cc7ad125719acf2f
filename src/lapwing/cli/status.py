"""`lapwing status`: running services and deployments in progress."""

from __future__ import annotations

import click

from lapwing.cli.context import Context
from lapwing.cli.options import context_option, environment_option, output_option


@click.command("status")
@click.option("--all", "every", is_flag=True, help="List every stack of this machine instead.")
@environment_option
@context_option
@output_option
@click.pass_obj
def command(context: Context, /, environment: str, cluster: str | None, *, every: bool) -> int:
    """Show running services and deployments in progress.

    Exit status: 0 if every service runs as desired, 1 if one does not. `--all` lists the address
    and the state of every stack that was deployed from this machine, from any folder. For an
    environment with `branches`, it lists the environments of all branches, without `--branch`.
    """
    from lapwing.cli import branches, present
    from lapwing.targets.base import ClusterOptions

    if every:
        from lapwing.targets import overview

        present.overview(context, overview.environments(context.settings))
        return 0
    if branches.is_template(context, environment):
        return branches.show(context, environment)
    return present.status(context, context.target(environment, ClusterOptions(cluster)).status())
