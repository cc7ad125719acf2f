"""The stage of a demo: a copy of the example in a repository of its own, a home and a port.

All of it is in one temporary folder. `clear` stops what runs and removes the folder, whatever state
the demo was in.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lapwing.agent import processes
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import LapwingError, UsageError
from lapwing.load.connection import Target
from lapwing.observed import status
from lapwing.settings import Settings
from lapwing.stack.load import LOCAL
from lapwing.system.files import remove_tree
from lapwing.system.git import Git
from lapwing.targets import local_agent as agent
from lapwing.targets import planned as change
from lapwing.targets.planned import Where

STACK = "company-inc"
IGNORED = shutil.ignore_patterns(
    "node_modules", "dist", "__pycache__", ".venv", "data", ".pytest_cache", ".git"
)
ENDING = 20.0
"""Seconds that everything may take to end by itself before it is killed."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a demo plays."""

    folder: Path
    settings: Settings

    @property
    def source(self) -> Path:
        """The copy of the example."""
        return self.folder / STACK

    @property
    def where(self) -> Where:
        """The environment that is deployed to."""
        return Where(STACK, LOCAL)

    @property
    def target(self) -> Target:
        """The running example, as a load client has to know it."""
        return Target(
            f"https://{STACK}.localhost:{self.settings.port}",
            address="127.0.0.1",
            authority=str(self.settings.certificates / "ca.pem"),
            timeout=30.0,
        )

    def commit(self, message: str) -> None:
        """Commit what is in the copy."""
        git(self, "add", "--all")
        git(self, "commit", "--quiet", "--message", message)

    def clear(self) -> None:
        """Stop everything and remove the folder. Never raises for what is gone already."""
        with contextlib.suppress(LapwingError, OSError):
            self._down()
        with contextlib.suppress(LapwingError, OSError):
            if self.settings.agent.exists():
                # One that was started a moment ago does not hear of its end before it is ready.
                agent.ensure(self.settings)
                agent.end(self.settings)
        for identity, _what in list(processes.owned(self.settings.home)):
            asyncio.run(processes.kill(identity))
        remove_tree(self.folder)

    def _down(self) -> None:
        """Want nothing to run, and wait until nothing does."""
        repository = DesiredRepository(self.settings.desired)
        if repository.newest(STACK, LOCAL) is None:
            return
        act = change.down(repository, self.where, "demo")
        repository.commit(act.document, expected=act.expected)
        agent.ensure(self.settings)
        folder = self.settings.environment(STACK, LOCAL)
        until = time.monotonic() + ENDING
        while time.monotonic() < until:
            found = status.read(folder)
            if found is None or (found.rollout is None and not found.running):
                return
            time.sleep(0.05)


def find_example(given: Path | None = None) -> Path:
    """The folder of the example: the one that was given, or that of the checkout which this
    Lapwing runs from. Raises UsageError if it is not there."""
    folder = given or Path(__file__).parents[4] / "examples" / STACK
    if not (folder / "lapwing.yaml").is_file():
        raise UsageError(
            f"The example is not in {folder}.",
            hint="It comes with Lapwing's source, not with its package: run the demo in a "
            "checkout (`make demo`), or name the folder with --example.",
        )
    return folder


def build(settings: Settings, example: Path) -> Stage:
    """Make the stage: nothing of the user's settings but the tools on the PATH is used."""
    folder = Path(tempfile.mkdtemp(prefix="lapwing-demo-")).resolve()
    home = folder / "home"
    environ = {k: v for k, v in settings.environ.items() if not k.startswith("LAPWING_")}
    stage = Stage(
        folder,
        dataclasses.replace(
            settings,
            home=home,
            port=processes.free_port(set()),
            bind="localhost",
            actor="demo",
            environ=environ,
        ),
    )
    try:
        shutil.copytree(example, stage.source, ignore=IGNORED)
        (stage.source / ".gitignore").write_text("node_modules/\ndist/\n__pycache__/\n")
        git(stage, "init", "--quiet", "--initial-branch", "main")
    except BaseException:
        remove_tree(folder)
        raise
    return stage


def git(stage: Stage, *arguments: str) -> None:
    """Run git in the demo's source. Raises LapwingError with the message of git."""
    identity: dict[str, str] = {}
    for role in ("AUTHOR", "COMMITTER"):
        identity |= {f"GIT_{role}_NAME": "Demo", f"GIT_{role}_EMAIL": "demo@localhost"}
    Git(stage.source, {**stage.settings.environ, **identity}).text(*arguments)
