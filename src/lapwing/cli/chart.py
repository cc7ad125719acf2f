"""`lapwing chart`: an environment as a Helm chart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lapwing.cli.context import Context
from lapwing.cli.options import environment_named, image_option, output_option
from lapwing.cli.rendered import folder_options

if TYPE_CHECKING:
    from lapwing.render.kubernetes.objects import ClusterEnvironment


@click.command("chart")
@environment_named(
    "The environment. Default: the first one with `target: kubernetes`. Others with the same "
    "objects become values files."
)
@folder_options("The folder to write; with --package, the folder of NAME-VERSION.tgz.")
@click.option(
    "--version", default="0.1.0", metavar="X.Y.Z", help="The version of the chart. Default: 0.1.0."
)
@click.option(
    "--app-version", metavar="V", help="The version of the application. Default: that of the chart."
)
@click.option("--package", is_flag=True, help="Write one reproducible .tgz file.")
@image_option
@output_option
@click.pass_obj
def command(
    context: Context,
    /,
    folder: Path,
    version: str,
    *,
    app_version: str | None,
    package: bool,
    force: bool,
    **chosen: Any,
) -> None:
    """Write a Helm chart of an environment.

    The chart has the name of the stack. With its default values `helm template` gives the output of
    `lapwing render`. Passwords are generated once, in the cluster. Helm need not be installed.
    """
    from lapwing.cli import rendered
    from lapwing.render.helm import stack
    from lapwing.render.helm.chart import check_version
    from lapwing.render.helm.chart import package as packed

    check_version(version)
    cluster, others = _cluster_environments(context, chosen["environment"], chosen["images"])
    name = cluster.loaded.stack.stack
    files = stack.files(cluster, stack.about(name, version, app_version), others)
    if package:
        data = {f"{name}-{version}.tgz": packed(name, files)}
        place = folder / f"{name}-{version}.tgz"
    else:
        data = {path: text.encode() for path, text in files.items()}
        place = folder
    # Packages of other versions stay in the folder.
    change = rendered.write(folder, data, force=force, keep=package)
    if context.for_programs:
        context.printer.json(
            {
                "chart": str(place), "name": name, "version": version,
                "environment": cluster.loaded.environment, **change.as_data(),
            }
        )  # fmt: skip
        return
    context.printer.data(str(place))
    context.printer.say(
        f"  helm install {name} {place} --namespace {cluster.namespace} --create-namespace"
    )


def _cluster_environments(
    context: Context, environment: str | None, images: dict[str, str]
) -> tuple[ClusterEnvironment, list[ClusterEnvironment]]:
    """Choose the environment of the chart, and candidates for presets."""
    from lapwing.errors import UsageError
    from lapwing.render.kubernetes import render
    from lapwing.stack.load import LOCAL, environments, find, load

    path = find(context.directory)
    every = [e for e in environments(path, folders=False) if e.settings.target == "kubernetes"]
    clusters = [e for e in every if e.environment != LOCAL]
    if environment is not None:
        chosen = load(path, environment, folders=False)
    elif clusters:
        chosen = clusters[0]
    else:
        raise UsageError(
            "No environment of this stack has `target: kubernetes`.",
            hint="Add one below `environments`, or name one with --env.",
        )
    cluster = render.prepare(chosen, images)
    rest = [e for e in clusters if e.environment != chosen.environment]
    return cluster, [render.prepare(e, images) for e in rest]
