"""`lapwing diagram`: draw the stack as Mermaid, SVG or PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.cli.options import document_environment_option
from lapwing.cli.rendered import write_file
from lapwing.errors import UsageError

if TYPE_CHECKING:
    from lapwing.design.diagrams.model import Picture
    from lapwing.design.subject import Subject
    from lapwing.stack.load import LoadedStack

NAMES = ("architecture", "bluegreen", "pipeline", "network", "cost")
FORMATS = ("mermaid", "svg", "png")
ENDINGS = {".mmd": "mermaid", ".mermaid": "mermaid", ".svg": "svg", ".png": "png"}


@click.command("diagram")
# Versions of click differ in the brackets, so they are written here.
@click.argument("name", type=click.Choice(NAMES), required=False, metavar=f"[{'|'.join(NAMES)}]")
@document_environment_option
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: by the suffix of -o.")
@click.option(
    "-o",
    "out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The output file; without a diagram name, a folder for all diagrams.",
)
@click.pass_obj
def command(
    context: Context, name: str | None, environment: str | None, form: str | None, out: Path | None
) -> None:
    """Draw a diagram: the architecture, a rollout, the pipeline, network security or monthly cost.

    Without -o, Mermaid text or SVG is printed.
    """
    chosen = _format(form, out, folder=name is None)
    loaded = environment_of(context, environment)
    if name is None:
        _all(context, loaded, chosen, out)
        return
    data = _drawn(_picture(name, context, loaded), chosen)
    if out is not None:
        write_file(out, data)
        context.printer.say(f"Wrote {out}.")
    elif chosen == "png":
        raise UsageError("A PNG cannot be printed to the terminal.", hint="Add -o FILE.png.")
    else:
        context.printer.data(data.decode().rstrip("\n"))


def environment_of(context: Context, environment: str | None) -> LoadedStack:
    """Load the stack in the given environment, or in the default one of documents."""
    from lapwing.stack.load import LOCAL, find, load

    path = find(context.directory)
    loaded = load(path, environment or LOCAL)
    if environment is not None:
        return loaded
    known = loaded.stack.environments
    if "production" in known:
        return load(path, "production")
    clouds = [name for name, e in known.items() if e.cloud is not None]
    clusters = [name for name, e in known.items() if e.target == "kubernetes"]
    found = clouds or clusters
    return load(path, found[-1]) if found else loaded


def subject_of(loaded: LoadedStack) -> Subject:
    """Read the inventory of the stack, and select the environment."""
    from lapwing.design.subject import subject_of as select
    from lapwing.inventory.read import read
    from lapwing.stack.load import environments

    others = environments(loaded.path, folders=False) if loaded.settings.cloud else []
    stacks = [s for s in others if s.environment != loaded.environment and s.settings.cloud]
    return select(read([loaded, *stacks]), loaded.environment)


def _format(form: str | None, out: Path | None, *, folder: bool) -> str:
    """Choose the format: --format, else by the suffix. Raises UsageError if they conflict."""
    if out is None or folder:
        return form or "mermaid"
    known = ENDINGS.get(out.suffix)
    if known is None and form is None:
        raise UsageError(
            f"{out} does not end with .mmd, .svg or .png.", hint="Add --format FORMAT."
        )
    if known is not None and form not in (None, known):
        raise UsageError(
            f"--format {form} does not match {out}.", hint="Remove --format, or change -o."
        )
    return form or str(known)


def _picture(name: str, context: Context, loaded: LoadedStack) -> Picture:
    from lapwing.commands.ci_pipeline import workflow_of
    from lapwing.cost.book import book
    from lapwing.cost.estimate import estimate
    from lapwing.design.cost_section import amounts_of
    from lapwing.design.diagrams.pictures import cost_picture, picture
    from lapwing.inventory.read import read

    subject = subject_of(loaded)
    if name != "cost":
        return picture(name, subject, workflow_of(context.directory, loaded.environment))
    costs, unknown = amounts_of(estimate(read([loaded]), book()))
    if not costs:
        raise UsageError(
            f"`lapwing cost` has no price for `{loaded.environment}`.",
            hint="Choose an environment with a `cloud` or a `machine`: -e NAME.",
        )
    return cost_picture(subject, costs, unknown)


def _all(context: Context, loaded: LoadedStack, form: str, out: Path | None) -> None:
    if out is None:
        raise UsageError(
            f"NAME is missing. Diagrams: {', '.join(NAMES)}.",
            hint="Add NAME, or -o FOLDER to write all diagrams.",
        )
    for name in NAMES:
        try:
            data = _drawn(_picture(name, context, loaded), form)
        except UsageError as error:
            context.printer.say(f"{name}: skipped. {error.message}")
            continue
        path = out / f"{name}.{'mmd' if form == 'mermaid' else form}"
        write_file(path, data)
        context.printer.data(str(path))


def _drawn(picture: Picture, form: str) -> bytes:
    if form == "mermaid":
        from lapwing.design.diagrams.mermaid import mermaid

        return mermaid(picture).encode()
    from lapwing.design.diagrams.layout import draw

    if form == "svg":
        from lapwing.design.diagrams.svg import svg

        return svg(draw(picture)).encode()
    from lapwing.design.diagrams.png import png

    return png(draw(picture))
