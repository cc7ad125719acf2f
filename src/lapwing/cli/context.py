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

Output = Literal["text", "json"]


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


def _remember(ctx: click.Context, _parameter: click.Parameter, value: Output) -> Output:
    ctx.find_object(Context).output = value  # type: ignore[union-attr]
    return value


def output_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--output text|json`, kept in the context, so errors take the same form as the answer."""
    return click.option(
        "--output",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        expose_value=False,
        callback=_remember,
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
