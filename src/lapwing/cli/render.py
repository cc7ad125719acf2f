"""`lapwing render`: write an environment as Kubernetes manifests."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.cli.options import environment_named, image_option, output_option
from lapwing.cli.rendered import folder_options

if TYPE_CHECKING:
    from lapwing.render.kubernetes.objects import ClusterEnvironment


@click.command("render")
@environment_named("An environment with `target: kubernetes`.", required=True)
@folder_options(
    "The folder to write: a file for each concern, and Argo CD's objects below argocd/."
)
@image_option
@output_option
@click.pass_obj
def command(
    context: Context, environment: str, folder: Path, images: dict[str, str], force: bool
) -> None:
    """Write the Kubernetes manifests of an environment.

    `kubectl apply -f DIR` applies the files in order. The same stack and the same images always
    give the same bytes.
    """
    from lapwing.cli import rendered
    from lapwing.render.kubernetes import render

    loaded = context.load(environment, folders=False)
    cluster = render.prepare(loaded, images)
    files = {name: text.encode() for name, text in render.folder_files(cluster).items()}
    change = rendered.write(folder, files, force=force)
    if context.for_programs:
        context.printer.json(
            {
                "folder": str(folder),
                "namespace": cluster.namespace,
                **change.as_data(),
            }
        )
        return
    context.printer.data(str(folder))
    context.printer.say(f"  {change}")
    if cluster.is_argo and cluster.settings.repository is None:
        context.printer.say(
            "  No Argo CD application: set `repository` of the environment to the URL of the "
            "desired-state repository."
        )
    if not cluster.is_argo:
        _explain_secrets(context, cluster)


def _explain_secrets(context: Context, cluster: ClusterEnvironment) -> None:
    """Print the Secrets that pods need. Manifests do not contain them."""
    from lapwing.kubernetes.verify import needed_secrets
    from lapwing.render.kubernetes import render

    kinds = ("Deployment", "Rollout", "StatefulSet", "Job", "CronJob")
    found = needed_secrets(t for t in render.objects(cluster) if t["kind"] in kinds)
    if not found:
        return
    deploy = f"lapwing deploy -e {cluster.loaded.environment}"
    context.printer.say(
        f"  Secrets are not in the files. `{deploy}` creates them; before "
        f"`kubectl apply`, create them in the namespace {cluster.namespace}:"
    )
    for name, keys in sorted(found.items()):
        what = f"keys {', '.join(sorted(keys))}" if keys else "type kubernetes.io/tls"
        context.printer.say(f"    {name}: {what}")
