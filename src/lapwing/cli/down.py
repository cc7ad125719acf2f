"""`lapwing down`: stop a stack; its data stays."""

from __future__ import annotations

import click

from lapwing.cli.context import Context
from lapwing.cli.options import context_option, environment_option, output_option
from lapwing.errors import UsageError


@click.command("down")
@click.option(
    "--volumes",
    is_flag=True,
    help="On a cluster, and for the environment of a branch: remove the data and the generated "
    "secrets as well.",
)
@click.option(
    "--cluster",
    "whole_cluster",
    is_flag=True,
    help="Remove the local cluster (kind, minikube) as well.",
)
@click.option(
    "--gone",
    is_flag=True,
    help="Remove the environments whose branch no longer exists, with their data: for an "
    "environment with `branches`.",
)
@click.option("--dry-run", is_flag=True, help="With --gone: print each decision; change nothing.")
@environment_option
@context_option
@click.option("--yes", is_flag=True, help="On a cluster: do not ask before a change.")
@output_option
@click.pass_obj
def command(
    context: Context,
    /,
    environment: str,
    cluster: str | None,
    yes: bool,
    **options: bool,
) -> int:
    """Stop the stack; its data stays, and `lapwing up` starts it again."""
    from lapwing.cli import branches, present
    from lapwing.targets.base import ClusterOptions, DownRequest

    if options["dry_run"] and not options["gone"]:
        raise UsageError("--dry-run of `down` is only for --gone.", hint="Add `--gone`.")
    if options["gone"]:
        if not branches.is_template(context, environment):
            context.ref(environment)
            raise UsageError(
                f"--gone is for an environment with `branches`, not for {environment}.",
                hint="Pass `-e NAME` of an environment with `branches`, without `--branch`.",
            )
        context.prepare_home()
        return branches.remove_gone(context, environment, dry_run=options["dry_run"])
    target = context.target(environment, ClusterOptions(cluster, yes))
    context.prepare_home()
    request = DownRequest(options["volumes"], options["whole_cluster"])
    return present.deploy_result(context, target.down(request))
