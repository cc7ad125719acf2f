"""`lapwing ci init`: write the workflow that runs Lapwing in a forge's CI."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.errors import LapwingError, UnmanagedFileError, UsageError
from lapwing.system.files import write_atomic

if TYPE_CHECKING:
    from lapwing.design.pipeline import Forge
    from lapwing.stack.load import LoadedStack


@click.group("ci")
def command() -> None:
    """Run Lapwing in a forge's CI."""


@command.command("init")
@click.option(
    "--forge", type=click.Choice(["gitea", "github"]), required=True, help="Where CI runs."
)
@click.option("-e", "--environment", metavar="NAME", help="What a push to main goes to.")
@click.option("--force", is_flag=True, help="Replace a workflow that people changed.")
@click.pass_obj
def init(context: Context, forge: Forge, environment: str | None, force: bool) -> None:
    """Write the workflow: lint and test everything, ship and release what comes to main.

    A file that is there and was changed by people stays; the difference is shown. Without
    --environment, a push to main goes to the first environment of the stack file on a machine.
    """
    from lapwing import __version__
    from lapwing.design.pipeline import FILES, Pipeline, unchanged, workflow
    from lapwing.stack.load import find, load

    loaded = load(find(context.directory), "local", folders=False)
    top = _top(loaded.folder.resolve())
    goal = _environment(loaded, environment)
    folder = loaded.folder.resolve().relative_to(top).as_posix()
    wanted = workflow(Pipeline(forge, __version__, goal, folder))
    path = top / FILES[forge]
    there = path.read_text(encoding="utf-8") if path.is_file() else None
    if there == wanted:
        context.printer.say(f"{path} is up to date.")
        return
    if there is not None and not force and not unchanged(there):
        lines = difflib.unified_diff(
            there.splitlines(), wanted.splitlines(), "there", "new", lineterm=""
        )
        raise UnmanagedFileError(
            f"{path} was changed since Lapwing wrote it, or is not by Lapwing.",
            hint="Take what you want of this difference by hand; `--force` replaces the file.",
            detail="\n".join(lines),
        )
    _write(path, wanted)
    context.printer.say(f"Wrote {path}.")
    if goal is None:
        context.printer.say("No environment on a machine: the workflow checks and releases only.")


def _top(folder: Path) -> Path:
    """The top of the git repository that a folder is in. Raises UsageError if it is in none."""
    for place in (folder, *folder.parents):
        if (place / ".git").exists():
            return place
    raise UsageError(
        f"{folder} is in no git repository.", hint="`git init` makes one; forges run CI for it."
    )


def _environment(loaded: LoadedStack, asked: str | None) -> str | None:
    """The environment to ship to: what is asked for, or the first one on a machine."""
    machines = [n for n, e in loaded.stack.environments.items() if e.target == "machine"]
    if asked is not None and asked not in machines:
        raise UsageError(
            f"There is no environment {asked!r} on a machine.",
            hint=f"There is: {', '.join(machines) or 'none'}.",
        )
    return asked or next((name for name in machines if name != "local"), None)


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text.encode(), None)
    except OSError as error:
        raise LapwingError(f"{path} cannot be written: {error.strerror}.") from error
