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
    """Set up CI workflows for a forge."""


@command.command("init")
@click.option(
    "--forge", type=click.Choice(["gitea", "github"]), required=True, help="The forge that runs CI."
)
@click.option(
    "-e", "--environment", metavar="NAME", help="The environment to ship to from the main branch."
)
@click.option("--force", is_flag=True, help="Replace a workflow that was edited.")
@click.pass_obj
def init(context: Context, forge: Forge, environment: str | None, force: bool) -> None:
    """Write the workflow: check every change, ship and release the main branch.

    An edited file is not replaced; the difference is shown. Default for --environment: the first
    environment of the stack file with `target: machine`.
    """
    from lapwing import __version__
    from lapwing.design.pipeline import FILES, Pipeline, unchanged, workflow
    from lapwing.stack.load import find, load

    loaded = load(find(context.directory), "local", folders=False)
    top = _repository_root(loaded.folder.resolve())
    target = _environment(loaded, environment)
    folder = loaded.folder.resolve().relative_to(top).as_posix()
    wanted = workflow(Pipeline(forge, __version__, target, folder))
    path = top / FILES[forge]
    found = path.read_text(encoding="utf-8") if path.is_file() else None
    if found == wanted:
        context.printer.say(f"{path} is up to date.")
        return
    if found is not None and not force and not unchanged(found):
        lines = difflib.unified_diff(
            found.splitlines(), wanted.splitlines(), "existing", "new", lineterm=""
        )
        raise UnmanagedFileError(
            f"{path} was edited, or was not written by Lapwing.",
            hint="Apply the difference by hand, or replace the file with `--force`.",
            detail="\n".join(lines),
        )
    try:
        write_atomic(path, wanted.encode(), None)
    except OSError as error:
        raise LapwingError(f"Cannot write {path}: {error.strerror}.") from error
    context.printer.say(f"Wrote {path}.")
    if target is None:
        context.printer.say(
            "The stack has no environment with `target: machine`: the workflow only checks and "
            "releases."
        )


def _repository_root(folder: Path) -> Path:
    """Return the root of the git repository of a folder. Raises UsageError if there is none."""
    for parent in (folder, *folder.parents):
        if (parent / ".git").exists():
            return parent
    raise UsageError(f"{folder} is not in a git repository.", hint="Run `git init` first.")


def _environment(loaded: LoadedStack, name: str | None) -> str | None:
    """Return the environment to ship to: the given one, or the first one on a machine."""
    machines = [n for n, e in loaded.stack.environments.items() if e.target == "machine"]
    if name is not None and name not in machines:
        raise UsageError(
            f"No environment {name!r} with `target: machine`.",
            hint=f"Environments on a machine: {', '.join(machines) or 'none'}.",
        )
    return name or next((machine for machine in machines if machine != "local"), None)
