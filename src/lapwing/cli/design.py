"""`lapwing design`: write the architecture document of the stack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.cli.diagram import environment_of, subject_of
from lapwing.cli.options import document_environment_option
from lapwing.cli.rendered import write_file
from lapwing.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lapwing.design.cost_section import Costs
    from lapwing.design.document import Sources
    from lapwing.design.parts import Document, Origin
    from lapwing.stack.load import LoadedStack

ENDINGS = (".md", ".pdf", ".html")


@click.command("design")
@document_environment_option
@click.option("--brief", is_flag=True, help="Write one or two pages instead of all sections.")
@click.option(
    "-o",
    "out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="FILE.md, FILE.html or FILE.pdf. Default: print Markdown.",
)
@click.pass_obj
def command(context: Context, environment: str | None, brief: bool, out: Path | None) -> None:
    """Write the architecture document of the stack: Markdown, HTML or PDF.

    It contains the decisions, the network, the deployment strategy, data, security, cost and open
    points. Date, revision and author are those of the last commit of the stack file.
    """
    from lapwing.design.document import document
    from lapwing.design.markdown import markdown

    if out is not None and out.suffix not in ENDINGS:
        raise UsageError(
            f"{out} does not end with .md, .html or .pdf.", hint="Use -o FILE.pdf, for example."
        )
    loaded = environment_of(context, environment)
    made = document(subject_of(loaded), _sources(context, loaded), brief=brief)
    if out is None:
        context.printer.data(markdown(made).rstrip("\n"))
        return
    write_file(out, _formatted(context, made, out.suffix, brief=brief))
    context.printer.say(f"Wrote {out}.")


def _formatted(context: Context, made: Document, suffix: str, *, brief: bool) -> bytes:
    from lapwing.design.markdown import markdown
    from lapwing.design.page import html

    if suffix == ".md":
        return markdown(made).encode()
    if suffix == ".html":
        return html(made).encode()
    from lapwing.design import fonts
    from lapwing.design.pdf import pdf, without_glyph
    from lapwing.system.fontconfig import match

    environ = context.settings.environ
    found = fonts.fallbacks(without_glyph(made), lambda characters: match(characters, environ))
    absent = without_glyph(made, found)
    if absent:
        context.printer.say(
            f"No font of this machine has a glyph for {' '.join(absent)}: `?` replaces it. Install "
            "a font, such as the package fonts-noto-cjk, or write FILE.html.",
            style="yellow",
        )
    return pdf(made, brief=brief, fallbacks=found)


def _sources(context: Context, loaded: LoadedStack) -> Sources:
    from lapwing.commands.ci_pipeline import workflow_of
    from lapwing.design.document import Sources
    from lapwing.inventory.read import read
    from lapwing.stack.load import environments
    from lapwing.targets.image_requests import outlines

    others = environments(loaded.path, folders=False) if loaded.settings.cloud else []
    clouds = [s for s in others if s.settings.cloud]
    return Sources(
        costs=_costs(loaded, clouds),
        workflow=workflow_of(context.directory, loaded.environment),
        stack=read(clouds),
        later=_later(loaded),
        images=outlines(loaded, context.settings),
        origin=_origin(context, loaded.path),
    )


def _costs(loaded: LoadedStack, clouds: Sequence[LoadedStack]) -> Costs:
    """Estimate an environment, and all that are in a cloud together if there are several."""
    from lapwing.cost.book import book
    from lapwing.cost.budget import budgets
    from lapwing.cost.estimate import estimate
    from lapwing.cost.levers import levers
    from lapwing.design.cost_section import Costs
    from lapwing.inventory.read import read

    prices = book()
    now, found = estimate(read([loaded]), prices), levers([loaded], prices)
    several = len(clouds) > 1
    names = {lever.name for lever in found}
    return Costs(
        now,
        found,
        estimate(read(clouds), prices) if several else None,
        [x for x in levers(clouds, prices) if x.name not in names] if several else (),
        next(budgets([loaded], now), None),
    )


def _origin(context: Context, file: Path) -> Origin:
    """Read the last commit of the stack file; a file with changes has no revision."""
    from lapwing.design.parts import Origin
    from lapwing.system.git import Git

    git = Git(file.parent, context.settings.environ)
    found = git.ask("log", "-1", "--format=%cs%x09%h%x09%an", "--", file.name)
    if not found:
        return Origin()
    date, revision, author = found.split("\t")
    changed = git.ask("status", "--porcelain", "--", file.name)
    return Origin(date, f"{revision} with uncommitted changes" if changed else revision, author)


def _later(loaded: LoadedStack) -> list[tuple[str, str, str]]:
    """List components that the stack does not have: why not, and when to add each."""
    from lapwing.review.finding import Subject
    from lapwing.review.overkill import COMPONENTS
    from lapwing.stack import source

    subject = Subject([loaded], source.read(loaded.path))
    rows = [row for row in COMPONENTS if row.applies(loaded)]
    absent = [row for row in rows if next(iter(row.find(subject)), None) is None]
    return [
        (f"{row.name[:1].upper()}{row.name[1:]}", row.reason([loaded]), row.when) for row in absent
    ]
