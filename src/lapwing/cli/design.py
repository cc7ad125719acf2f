"""`lapwing design`: write the architecture document of the stack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.cli.diagram import amounts, environment_of
from lapwing.cli.options import document_environment_option
from lapwing.cli.rendered import write_file
from lapwing.errors import UsageError

if TYPE_CHECKING:
    from lapwing.stack.load import LoadedStack


@click.command("design")
@document_environment_option
@click.option(
    "-o",
    "out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="FILE.md or FILE.pdf. Default: print Markdown.",
)
@click.pass_obj
def command(context: Context, environment: str | None, out: Path | None) -> None:
    """Write the architecture document of the stack: one or two pages, Markdown or PDF."""
    from lapwing.design.document import document, markdown

    if out is not None and out.suffix not in (".md", ".pdf"):
        raise UsageError(
            f"{out} does not end with .md or .pdf.", hint="Use -o FILE.md or -o FILE.pdf."
        )
    loaded = environment_of(context, environment)
    costs, unknown = amounts(loaded)
    made = document(loaded, costs, unknown=unknown, later=_later(loaded))
    if out is None:
        context.printer.data(markdown(made).rstrip("\n"))
        return
    if out.suffix == ".pdf":
        from lapwing.design.pdf import pdf

        data = pdf(made)
    else:
        data = markdown(made).encode()
    write_file(out, data)
    context.printer.say(f"Wrote {out}.")


def _later(loaded: LoadedStack) -> list[tuple[str, str]]:
    """List components that the stack does not have, and when to add each (`lapwing review`)."""
    from lapwing.review.finding import Subject
    from lapwing.review.overkill import COMPONENTS
    from lapwing.stack import source

    if loaded.settings.cloud is None:
        return []
    subject = Subject([loaded], source.read(loaded.path))
    absent = (row for row in COMPONENTS if next(iter(row.find(subject)), None) is None)
    return [(f"{row.name[:1].upper()}{row.name[1:]}", row.when) for row in absent]
