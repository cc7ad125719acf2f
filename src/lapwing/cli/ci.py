"""`lapwing ci init`: write the workflow that runs Lapwing in a forge's CI."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lapwing import DISTRIBUTION
from lapwing.cli.context import Context
from lapwing.cli.options import environment_named
from lapwing.errors import LapwingError, UnmanagedFileError, UsageError
from lapwing.system.files import write_atomic

if TYPE_CHECKING:
    from lapwing.cli.output import Printer
    from lapwing.design.pipeline import Forge, Pipeline


@click.group("ci")
def command() -> None:
    """Set up CI workflows for a forge."""


@command.command("init")
@click.option(
    "--forge", type=click.Choice(["gitea", "github"]), required=True, help="The forge that runs CI."
)
@environment_named("The environment to ship to from the main branch.")
@click.option(
    "--install-from",
    metavar="SOURCE",
    help=f"Where the workflow installs Lapwing from: {DISTRIBUTION}==VERSION, the URL of a wheel "
    "with #sha256=DIGEST, git+URL@COMMIT, or a requirements file with hashes in the repository. "
    "Default: where this Lapwing was installed from.",
)
@click.option("--force", is_flag=True, help="Replace a workflow that was edited.")
@click.pass_obj
def init(
    context: Context,
    forge: Forge,
    environment: str | None,
    install_from: str | None,
    force: bool,
) -> None:
    """Write the workflow: check every change, ship and release the release branches.

    An edited file is not replaced; the difference is shown. Default for --environment: the first
    environment with `target: machine` except `local` and those with `branches`, else the first one
    that Argo CD applies from its `repository`.
    """
    from lapwing.commands import ci_pipeline, ci_source
    from lapwing.design.pipeline import FILES
    from lapwing.design.workflow import unchanged, workflow
    from lapwing.stack import project

    released = project.read(project.find(context.directory))
    top = _repository_root(released.folder.resolve())
    source = install_from or ci_source.installed_from()
    branch = ci_pipeline.unlisted_branch(released, context.settings, top)
    keyless = ci_pipeline.is_keyless(released, forge)
    install = ci_source.pip_arguments(source, top, keyless=keyless)
    pipeline = ci_pipeline.pipeline_of(released, forge, environment, install, top, branch)
    wanted = workflow(pipeline)
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
        raise LapwingError(f"Cannot write {path}: {error.strerror or error}.") from error
    context.printer.say(f"Wrote {path}. It installs Lapwing from {source}.")
    if branch is not None:
        context.printer.say(
            f"The default branch is {branch}: add `release: {{branches: [{branch}]}}` to "
            f"{released.path.name}, so that `lapwing release` accepts it.",
            style="yellow",
        )
    if source.startswith(DISTRIBUTION):
        context.printer.say(
            "Check that your package index has this version, or use --install-from with a git "
            "commit or a wheel.",
            style="yellow",
        )
    _explain(pipeline, context.printer)


def _explain(pipeline: Pipeline, printer: Printer) -> None:
    """Print what has to be created in the forge, and what the workflow does not do."""
    from lapwing.design.branch_jobs import BRANCHES_KEY
    from lapwing.design.pipeline import KNOWN_HOSTS

    if pipeline.reviewed is not None:
        printer.say(
            "Pull requests are deployed: create an SSH key, allow it with "
            f"`lapwing server key -e {pipeline.reviewed} FILE.pub`, and create the secrets "
            f"{BRANCHES_KEY} (the private key) and {KNOWN_HOSTS} (the line of the server in "
            "~/.ssh/known_hosts)."
        )
    if pipeline.ship is None and pipeline.stack:
        printer.say(
            "The workflow has no job `ship`: the stack has no environment on a machine "
            "(without `branches`), and none that Argo CD applies from a `repository`."
        )
    shipped = () if pipeline.ship is None else pipeline.ship.settings
    for setting in {each.name: each for each in (*pipeline.settings, *shipped)}.values():
        kind = "secret" if setting.is_secret else "variable"
        printer.say(f"Create the {kind} {setting.name}: {setting.meaning}")


def _repository_root(folder: Path) -> Path:
    """Return the root of the git repository of a folder. Raises UsageError if there is none."""
    for parent in (folder, *folder.parents):
        if (parent / ".git").exists():
            return parent
    raise UsageError(f"{folder} is not in a git repository.", hint="Run `git init` first.")
