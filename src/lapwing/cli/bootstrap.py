"""`lapwing bootstrap`: install the add-ons of an environment in its cluster."""

from __future__ import annotations

from pathlib import Path

import click

from lapwing.cli.context import Context
from lapwing.cli.options import context_option, environment_named, output_option

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command("bootstrap")
@environment_named("An environment with `target: kubernetes`.", required=True)
@click.option(
    "--render-only",
    "folder",
    type=FOLDER,
    metavar="DIR",
    help="Write the objects to this folder, and access no cluster.",
)
@click.option(
    "--manifests",
    type=FOLDER,
    metavar="DIR",
    help="Read the manifests of add-ons from this folder instead of the internet.",
)
@context_option
@click.option("--yes", is_flag=True, help="Do not ask before a change.")
@output_option
@click.pass_obj
def command(
    context: Context,
    environment: str,
    folder: Path | None,
    manifests: Path | None,
    cluster: str | None,
    yes: bool,
) -> int:
    """Install the add-ons that an environment needs in its cluster, and check them.

    Installs Argo CD with External Secrets and the root application, Argo Rollouts, and
    metrics-server, as far as the environment needs them. Argo CD, Argo Rollouts and metrics-server
    that others installed are not changed. Exit status: 1 if a check fails.
    """
    from lapwing.cli import present, rendered
    from lapwing.commands import bootstrap
    from lapwing.render.kubernetes import addons
    from lapwing.targets.base import ClusterOptions
    from lapwing.targets.select import cluster_of

    loaded = context.load(environment, folders=False)
    wanted = bootstrap.rendered_environment(loaded)
    if folder is not None:
        texts = bootstrap.read_manifests(addons.needed(wanted), manifests, context.printer)
        files = {n: t.encode() for n, t in addons.files(wanted, texts).items()}
        change = rendered.write(folder, files)
        if context.for_programs:
            context.printer.json({"folder": str(folder), **change.as_data()})
            return 0
        context.printer.data(str(folder))
        context.printer.say(f"  {change}")
        context.printer.say(
            "Apply the files in order, each with `kubectl apply --server-side -f FILE`."
        )
        return 0
    options = ClusterOptions(cluster, yes)
    place = cluster_of(context.stack_file, environment, context.settings, context.printer, options)
    assert place is not None  # `rendered_environment` refuses a machine.
    return present.checks(context, bootstrap.bootstrap(loaded, place, manifests, context.printer))
