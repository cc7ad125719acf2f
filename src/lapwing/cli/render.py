"""`lapwing render`: an environment as Kubernetes manifests."""

from __future__ import annotations

from pathlib import Path

import click

from lapwing.cli.context import Context, output_option


@click.command("render")
@click.option(
    "-e",
    "--environment",
    "--env",
    required=True,
    metavar="NAME",
    help="The environment, one with `target: kubernetes`.",
)
@click.option(
    "-o",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to write: a file for each concern, and Argo CD's own below argocd/.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="SERVICE=REF",
    help="The image of a service, in place of the one in the stack file.",
)
@click.option("--force", is_flag=True, help="Overwrite files that Lapwing did not write.")
@output_option
@click.pass_obj
def command(
    context: Context, environment: str, folder: Path, images: tuple[str, ...], force: bool
) -> None:
    """Write the manifests of an environment, ready to apply in the order of the files' objects.

    The same stack and the same images always give the same bytes.
    """
    from lapwing.cli import rendered
    from lapwing.render.kubernetes import render
    from lapwing.stack.load import find, load

    loaded = load(find(context.directory), environment, folders=False)
    target = render.target(loaded, given(images))
    files = {name: text.encode() for name, text in render.files(target).items()}
    argo = {f"argocd/{name}": text.encode() for name, text in render.argo_files(target).items()}
    change = rendered.write(folder, {**files, **argo}, force=force)
    if context.for_programs:
        context.printer.json(
            {
                "folder": str(folder),
                "namespace": target.namespace,
                "written": change.written,
                "removed": change.removed,
                "unchanged": change.unchanged,
            }
        )
        return
    context.printer.data(str(folder))
    context.printer.say(
        f"  {len(change.written)} files written, {len(change.removed)} removed, "
        f"{len(change.unchanged)} unchanged"
    )
    if target.is_argo and not argo:
        context.printer.say(
            "  Nothing for Argo CD: it needs the URL of the desired-state repository. "
            "Add `repository:` to the environment."
        )


def given(images: tuple[str, ...]) -> dict[str, str]:
    """`SERVICE=REF` options by service. Raises click.UsageError."""
    found = {}
    for text in images:
        service, separator, reference = text.partition("=")
        if not separator or not service or not reference:
            raise click.UsageError(f"--image takes SERVICE=REF, not {text!r}.")
        found[service] = reference
    return found
