"""What every verb is given: the settings, the folder it works on, and the printer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from lapwing.cli.output import Printer
from lapwing.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

Output = Literal["text", "json", "markdown"]


@dataclass(slots=True)
class Context:
    """`directory` is the folder of `-C`, or the current one; `output` is set by the verb."""

    settings: Settings
    directory: Path
    printer: Printer
    output: Output = "text"

    @property
    def for_programs(self) -> bool:
        """Whether the answer is JSON."""
        return self.output == "json"


def complete_services(
    ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[str]:
    """The services of the stack that begin so, for a shell's completion; none where the stack file
    is broken."""
    from lapwing.errors import LapwingError
    from lapwing.stack import source
    from lapwing.stack.load import find

    try:
        data = source.read(find(ctx.find_root().params.get("directory") or Path())).data
        names = list(data["services"])
    except (LapwingError, KeyError, TypeError):
        return []
    return [str(n) for n in names if str(n).startswith(incomplete)]


def accept_directory(command: click.Command) -> None:
    """Let a verb take `-C DIR` behind its name as well as before it; its subcommands too."""
    if any("-C" in p.opts for p in command.params):
        return
    command.params.append(
        click.Option(
            ["-C", "directory_of_stack"],
            type=click.Path(path_type=Path),
            metavar="DIR",
            expose_value=False,
            callback=_enter,
            help="Work on the stack of this folder.",
        )
    )
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        accept_directory(inner)


def _enter(ctx: click.Context, _parameter: click.Parameter, value: Path | None) -> None:
    context = ctx.find_object(Context)
    if value is not None and context is not None:
        context.directory = value


def remember_output(ctx: click.Context, _parameter: click.Parameter, value: Output) -> Output:
    """Keep the form of the answer in the context, so that errors take it as well."""
    context = ctx.find_object(Context)
    if context is not None:
        context.output = value
    return value


def image_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--image SERVICE=REF`, any number of times, as `images`: references by service."""
    return click.option(
        "--image",
        "images",
        multiple=True,
        metavar="SERVICE=REF",
        callback=_images,
        help="On a cluster: the image of a service, in place of the one in the stack file.",
    )(function)


def _images(
    _ctx: click.Context, _parameter: click.Parameter, value: tuple[str, ...]
) -> dict[str, str]:
    found = {}
    for text in value:
        service, separator, reference = text.partition("=")
        if not separator or not service or not reference:
            raise click.UsageError(f"--image takes SERVICE=REF, not {text!r}.")
        found[service] = reference
    return found


def output_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--output text|json`, kept in the context, so errors take the same form as the answer."""
    return click.option(
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        expose_value=False,
        callback=remember_output,
        help="Text for people or JSON for programs.",
    )(function)


def environment_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--environment NAME` (also `--env`, `-e`): which environment of the stack."""
    return click.option(
        "-e",
        "--environment",
        "--env",
        default="local",
        show_default=True,
        metavar="NAME",
        help="The environment of the stack.",
    )(function)


def environments_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for verbs that speak of all environments together unless one is named (None is
    all)."""
    return click.option(
        "-e",
        "--environment",
        "--env",
        metavar="NAME",
        help="Only this environment; otherwise all but local.",
    )(function)
