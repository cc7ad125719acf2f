"""`lapwing init`: a first stack file from what is in the folder, with every guess marked."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.errors import LapwingError, UsageError
from lapwing.system.files import write_atomic

if TYPE_CHECKING:
    from lapwing.stack.detect import Findings


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path), required=False, metavar="[DIR]")
@click.option("--force", is_flag=True, help="Replace a lapwing.yaml that is there.")
@click.pass_obj
def command(context: Context, directory: Path | None, force: bool) -> None:
    """Write a first lapwing.yaml from what is in the folder.

    Looks for Python and Node sources, Procfile, Dockerfile and a Compose file, there and in its
    subfolders. What is only a guess stands as a comment in the file.
    """
    from lapwing.stack.draft import draft
    from lapwing.stack.load import FILE, load

    folder = (context.directory / directory) if directory else context.directory
    path = folder.absolute() / FILE
    if os.path.lexists(path) and not force:
        raise UsageError(f"{path} is there already.", hint="`--force` replaces it.")
    findings = _find(folder)
    _write(path, draft(findings))
    load(path)
    _tell(context, path, findings)


def _find(folder: Path) -> Findings:
    from lapwing.stack.detect import detect
    from lapwing.stack.look import look

    try:
        files = look(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be read: {error.strerror}.") from error
    findings = detect(folder.resolve().name, files)
    if not findings.services:
        raise UsageError(
            f"Nothing was found in {folder.absolute()} that Lapwing knows how to run.",
            hint="It looks for pyproject.toml, requirements.txt and package.json, there and in "
            "subfolders. A lapwing.yaml can also be written by hand.",
            detail="\n".join(findings.notes) or None,
        )
    return findings


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text.encode(), None)
    except OSError as error:
        raise LapwingError(f"{path} cannot be written: {error.strerror}.") from error


def _tell(context: Context, path: Path, findings: Findings) -> None:
    printer = context.printer
    printer.say(f"Wrote {path}.")
    for service in findings.services:
        what = service.command or f"the files of {service.static}"
        printer.say(f"  {service.name} ({service.kind}, {service.folder}): {what}")
    for resource in findings.resources:
        printer.say(f"  {resource.name} ({resource.kind})")
    notes = [f"{s.name}: {n}" for s in findings.services for n in s.notes] + findings.notes
    if notes:
        printer.say("Look at these:", style="bold")
        for note in notes:
            printer.say(f"  - {note}")
    printer.say("`lapwing up` runs it.")
