"""`lapwing diagram`: pictures of the stack, as Mermaid, SVG or PNG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.cli.rendered import write_file
from lapwing.errors import UsageError

if TYPE_CHECKING:
    from lapwing.design.diagrams.model import Picture
    from lapwing.stack.load import LoadedStack

NAMES = ("architecture", "bluegreen", "pipeline", "network", "cost")
FORMATS = ("mermaid", "svg", "png")
ENDINGS = {".mmd": "mermaid", ".mermaid": "mermaid", ".svg": "svg", ".png": "png"}


@click.command("diagram")
@click.argument("name", type=click.Choice(NAMES), required=False)
@click.option(
    "-e",
    "--environment",
    "--env",
    metavar="NAME",
    help="The environment. Default: `production`, else the last one that is in a cloud or on a "
    "cluster, else local.",
)
@click.option("--format", "form", type=click.Choice(FORMATS), help="Default: by the ending of -o.")
@click.option(
    "-o",
    "out",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The file; without NAME, a folder that gets all of them.",
)
@click.pass_obj
def command(
    context: Context, name: str | None, environment: str | None, form: str | None, out: Path | None
) -> None:
    """Draw the stack: its architecture, a blue-green rollout, the pipeline, the layers of network
    security, or its monthly cost as a pie.

    Without -o, Mermaid text or SVG goes to the terminal.
    """
    chosen = _format(form, out, folder=name is None)
    loaded = environment_of(context, environment)
    if name is None:
        _all(context, loaded, chosen, out)
        return
    data = _drawn(_picture(name, loaded), chosen)
    if out is not None:
        write_file(out, data)
        context.printer.say(f"Wrote {out}.")
    elif chosen == "png":
        raise UsageError("A PNG is no text for a terminal.", hint="Add -o FILE.png.")
    else:
        context.printer.data(data.decode().rstrip("\n"))


def environment_of(context: Context, environment: str | None) -> LoadedStack:
    """The stack in the environment that is asked for, or in the one that documents are about."""
    from lapwing.stack.load import LOCAL, find, load

    path = find(context.directory)
    loaded = load(path, environment or LOCAL)
    if environment is not None:
        return loaded
    there = loaded.stack.environments
    clouds = [name for name, e in there.items() if e.cloud is not None]
    clusters = [name for name, e in there.items() if e.target == "kubernetes"]
    found = clouds or clusters
    if not found:
        return loaded
    return load(path, "production" if "production" in found else found[-1])


def amounts(loaded: LoadedStack) -> tuple[list[tuple[str, float]], int]:
    """What each part of the environment costs a month, the middle of low and high, in US dollars,
    and how many lines have no known price and are not in it."""
    from lapwing.cost.book import book
    from lapwing.cost.estimate import estimate

    if loaded.settings.cloud is None:
        return [], 0
    found: dict[str, float] = {}
    lines = estimate([loaded], book()).lines
    for line in lines:
        if line.low is not None and line.high is not None:
            found[line.part] = found.get(line.part, 0.0) + float(line.low + line.high) / 2
    unknown = sum(not line.known for line in lines)
    return [(part, round(amount, 2)) for part, amount in found.items()], unknown


def _format(form: str | None, out: Path | None, *, folder: bool) -> str:
    """What to write: as asked for, else by the ending of the file. Raises UsageError where they do
    not fit together."""
    if out is None or folder:
        return form or "mermaid"
    known = ENDINGS.get(out.suffix)
    if known is None and form is None:
        raise UsageError(
            f"{out} ends neither with .mmd nor with .svg or .png.", hint="Or say which: --format."
        )
    if known is not None and form not in (None, known):
        raise UsageError(f"{out} would not be {form}.", hint="Leave --format out, or change -o.")
    return form or str(known)


def _picture(name: str, loaded: LoadedStack) -> Picture:
    from lapwing.design.diagrams.pictures import picture

    costs, unknown = amounts(loaded) if name == "cost" else ((), 0)
    found = picture(name, loaded, costs, unknown)
    if name == "cost" and not getattr(found, "slices", ()):
        raise UsageError(
            f"`{loaded.environment}` costs nothing that `lapwing cost` knows a price for.",
            hint="Choose an environment with a cloud: -e NAME.",
        )
    return found


def _all(context: Context, loaded: LoadedStack, form: str, out: Path | None) -> None:
    if out is None:
        raise UsageError(
            f"Which picture? One of {', '.join(NAMES)}.", hint="Or all of them, into -o FOLDER."
        )
    for name in NAMES:
        try:
            data = _drawn(_picture(name, loaded), form)
        except UsageError as error:
            context.printer.say(f"{name}: left out. {error.message}")
            continue
        path = out / f"{name}.{'mmd' if form == 'mermaid' else form}"
        write_file(path, data)
        context.printer.data(str(path))


def _drawn(picture: Picture, form: str) -> bytes:
    if form == "mermaid":
        from lapwing.design.diagrams.text import mermaid

        return mermaid(picture).encode()
    from lapwing.design.diagrams.layout import draw

    if form == "svg":
        from lapwing.design.diagrams.svg import svg

        return svg(draw(picture)).encode()
    from lapwing.design.diagrams.png import png

    return png(draw(picture))
