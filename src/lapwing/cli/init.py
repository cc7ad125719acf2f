"""`lapwing init`: write a stack file for a folder, with a comment at each guess."""

from __future__ import annotations

import os
import posixpath
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing.cli.context import Context
from lapwing.errors import LapwingError, StackFileError, UsageError
from lapwing.system.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lapwing.stack.compose_files import Choice
    from lapwing.stack.detect import Findings
    from lapwing.system.git import Git

MAX_NAMED_FILES = 5


@click.command("init")
@click.argument("directory", type=click.Path(path_type=Path), required=False, metavar="[DIR]")
@click.option("--force", is_flag=True, help="Replace an existing lapwing.yaml.")
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE",
    help="Compose file in the folder to read; repeat it to merge several. Default: compose.yaml "
    "and compose.override.yaml.",
)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="NAME",
    help="Add the services of a Compose profile; repeatable.",
)
@click.pass_obj
def command(
    context: Context,
    directory: Path | None,
    force: bool,
    files: tuple[str, ...],
    profiles: tuple[str, ...],
) -> None:
    """Create a lapwing.yaml from the files in a folder.

    Detects Python and Node.js sources, Procfiles, Dockerfiles and a Compose project, in the folder
    and its subfolders. Guesses are marked with comments in the file.
    """
    from lapwing.stack.compose_files import Choice
    from lapwing.stack.draft import draft
    from lapwing.stack.load import FILE

    folder = (context.directory / directory) if directory else context.directory
    path = folder.absolute() / FILE
    if os.path.lexists(path) and not force:
        raise UsageError(f"{path} already exists.", hint="Replace it: lapwing init --force.")
    chosen = (os.path.relpath(f, folder.absolute()) if posixpath.isabs(f) else f for f in files)
    findings = _find(folder, Choice(tuple(chosen), profiles))
    text = draft(findings)
    _check(folder, text)
    _write(path, text)
    _print_summary(context, path, findings)


def _find(folder: Path, choice: Choice) -> Findings:
    from lapwing.stack.detect import detect
    from lapwing.stack.detect_files import COMPOSE, MAX_FILE_BYTES, read_files

    try:
        files = read_files(folder, choice.files)
    except OSError as error:
        raise UsageError(f"Cannot read {folder}: {error.strerror or error}.") from error
    missing = [name for name in choice.files if posixpath.normpath(name) not in files]
    reason = (
        f"not read, because it is a link, outside of {folder.absolute()}, larger than "
        f"{MAX_FILE_BYTES // 1024} KiB, not readable, or not UTF-8 text"
    )
    if present := [name for name in missing if (folder / name).is_file()]:
        raise UsageError(
            f"{', '.join(present)}: {reason}.",
            hint="Give the path of a Compose file below this folder.",
        )
    if missing:
        raise UsageError(
            f"{', '.join(missing)}: no such Compose file in {folder.absolute()}.",
            hint="Give the path of a file below this folder.",
        )
    findings = detect(folder.resolve().name, files, choice)
    unread = sorted(p.name for p in folder.iterdir() if COMPOSE.fullmatch(p.name))
    findings.notes += [f"{name}: {reason}; ignored." for name in unread if name not in files]
    if not findings.services:
        raise UsageError(
            f"No service detected in {folder.absolute()}.",
            hint="Write the start command into a Procfile in the source folder, such as `web: "
            "python app.py` (it listens on $PORT), and run the command again. Or write "
            "lapwing.yaml by hand."
            if findings.notes
            else "Detection needs a pyproject.toml, requirements.txt or package.json, there or in "
            "a subfolder. `lapwing init --help` shows what is detected; else write lapwing.yaml by "
            "hand.",
            detail="\n".join(findings.notes) or None,
        )
    return findings


def _check(folder: Path, text: str) -> None:
    """Check the text before it is written as the stack file. Raises LapwingError."""
    from lapwing.stack.load import load

    with tempfile.NamedTemporaryFile("w", dir=folder, prefix=".lapwing-init-") as draft:
        draft.write(text)
        draft.flush()
        try:
            load(Path(draft.name))
        except StackFileError as error:
            lines = [f"{p.message} {p.hint or ''}".rstrip() for p in error.problems]
            raise LapwingError(
                "The stack file for this folder would be invalid; nothing was written.",
                detail="\n".join(lines),
                hint="Write lapwing.yaml by hand, and run `lapwing check`.",
            ) from error


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text.encode(), None)
    except OSError as error:
        raise LapwingError(f"{path} cannot be written: {error.strerror or error}.") from error


def _print_summary(context: Context, path: Path, findings: Findings) -> None:
    printer = context.printer
    printer.say(f"Wrote {path}.")
    for service in findings.services:
        what = service.command or service.dockerfile or f"files in {service.static}"
        printer.say(f"  {service.name} ({service.kind}, {service.folder}): {what}")
    for resource in findings.resources:
        printer.say(f"  {resource.name} ({resource.kind})")
    notes = [f"{s.name}: {n}" for s in findings.services for n in s.notes] + findings.notes
    if notes:
        printer.say("Review:", style="bold")
        for note in notes:
            printer.say(f"  - {note}")
    printer.say("Next:", style="bold")
    for number, step in enumerate(_next_steps(context, path, findings), 1):
        printer.say(f"  {number}. {step}")


def _next_steps(context: Context, path: Path, findings: Findings) -> Iterator[str]:
    """Yield what to do until the stack runs: lock files, a commit, the first deployment."""
    from lapwing.build.detect import detect
    from lapwing.errors import BuildError, SourceError
    from lapwing.system.git import Git

    folder, builds = path.parent, [s for s in findings.services if not s.dockerfile]
    for service in builds:
        try:
            names = {file.name for file in (folder / service.folder).iterdir()}
            detect(names, static=service.static is not None)
        except BuildError as error:
            yield f"{service.name}: {error.message} {error.hint}"
    try:
        yield from _commit_steps(Git(folder, context.settings.environ, SourceError), path.name)
    except SourceError as error:
        yield f"{error.message} {error.hint or ''}".rstrip()
    if len(builds) == len(findings.services):
        yield "`lapwing up`"
    else:
        yield (
            "`lapwing up`, on a machine with Docker or Podman for the services with a Dockerfile, "
            "or `lapwing image build -e production` to build the images for Kubernetes"
        )


def _commit_steps(git: Git, name: str) -> Iterator[str]:
    """Yield how to commit the stack file, and what else is not committed yet."""
    from lapwing.system.git import first_names

    if git.ask("rev-parse", "--git-dir") is None:
        yield "`git init`, then `git add` the files of the services: releases are made from commits"
    else:
        others = [each for each in git.changes("--", ".") if not each.endswith(name)]
        private = [each for each in others if Path(each).name == ".env"]
        if private:
            yield (
                f"Do not commit {first_names(private, MAX_NAMED_FILES)}: add it to .gitignore, and "
                "list its variables in `env` or `secrets` of the services"
            )
        if others := [each for each in others if each not in private]:
            shown = first_names(others, MAX_NAMED_FILES)
            yield f"`git add` the uncommitted files that the services need: {shown}"
    yield f"`git add {name} && git commit -m 'Add {name}'`"
