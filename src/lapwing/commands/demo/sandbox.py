"""The sandbox of a demo: a copy of the example in its own git repository, a home and a port.

All of it is in one temporary folder. `clear` stops what runs and removes the folder, in whatever
state the demo is.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import shutil
import tarfile
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lapwing.agent import ports, process_tree, termination
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import LapwingError, UsageError
from lapwing.load.connection import Target
from lapwing.observed import status
from lapwing.settings import Settings
from lapwing.stack.load import LOCAL
from lapwing.system.archives import extract
from lapwing.system.files import remove_tree
from lapwing.system.git import Git
from lapwing.targets import guards, local_agent, planned
from lapwing.targets.base import EnvironmentRef

STACK = "company-inc"
IGNORED = shutil.ignore_patterns(
    "node_modules", "dist", "__pycache__", ".venv", "data", ".pytest_cache", ".git"
)
STOP_TIMEOUT_S = 20.0
"""Time for a graceful stop before processes are killed."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """The folder and the settings of a demo."""

    folder: Path
    settings: Settings

    @property
    def source(self) -> Path:
        """The copy of the example."""
        return self.folder / STACK

    @property
    def where(self) -> EnvironmentRef:
        """The environment that is deployed to."""
        return EnvironmentRef(STACK, LOCAL)

    @property
    def target(self) -> Target:
        """The address of the running example, for the load client."""
        return Target(
            f"https://{STACK}.localhost:{self.settings.port}",
            address="127.0.0.1",
            authority=str(self.settings.certificates / "ca.pem"),
            timeout=30.0,
        )

    def commit(self, message: str) -> None:
        """Commit the present state of the copy."""
        git(self, "add", "--all")
        git(self, "commit", "--quiet", "--message", message)

    def clear(self) -> None:
        """Stop everything and remove the folder. Ignores what no longer exists."""
        with contextlib.suppress(LapwingError, OSError):
            self._down()
        with contextlib.suppress(LapwingError, OSError):
            if self.settings.agent.exists():
                # An agent that is just starting cannot be stopped before it is ready.
                local_agent.ensure(self.settings)
                local_agent.end(self.settings)
        for identity, _what in list(process_tree.owned(self.settings.home)):
            asyncio.run(termination.kill(identity))
        remove_tree(self.folder)

    def _down(self) -> None:
        """Commit a document without services, and wait until nothing runs."""
        repository = DesiredRepository(self.settings.desired)
        if repository.newest(STACK, LOCAL) is None:
            return
        plan = planned.down(repository, self.where, "demo")
        guards.commit(repository, guards.check(repository, plan, "down"))
        local_agent.ensure(self.settings)
        folder = self.settings.environment(STACK, LOCAL)
        until = time.monotonic() + STOP_TIMEOUT_S
        while time.monotonic() < until:
            found = status.read(folder)
            if found is None or (found.rollout is None and not found.running):
                return
            time.sleep(0.05)


def find_example(given: Path | None = None) -> Path:
    """Return the given folder of the example, or the one of this checkout.

    Raises UsageError if it does not exist.
    """
    folder = given or Path(__file__).parents[4] / "examples" / STACK
    if not (folder / "lapwing.yaml").is_file():
        raise UsageError(
            f"{folder} does not contain the example.",
            hint="The example is part of the source repository, not of the package: run "
            "`make demo` in a clone, or name the folder with `--example DIR`.",
        )
    return folder


def copy_example(
    example: Path, folder: Path, environ: Mapping[str, str], *, committed: bool
) -> None:
    """Copy the example; as it is `committed`, if it is, whatever was changed in it since."""
    if committed:
        with contextlib.suppress(LapwingError):
            data = Git(example, environ).data("archive", "--format=tar", "HEAD")
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                extract(archive, folder)
    if not (folder / "lapwing.yaml").is_file():
        shutil.copytree(example, folder, ignore=IGNORED, dirs_exist_ok=True)


def build(settings: Settings, given: Path | None = None) -> Sandbox:
    """Create the sandbox from a given folder, or from the committed example of this checkout.

    Of the user's settings only the programs on the PATH are used.
    """
    example = find_example(given)
    folder = Path(tempfile.mkdtemp(prefix="lapwing-demo-")).resolve()
    home = folder / "home"
    environ = {k: v for k, v in settings.environ.items() if not k.startswith("LAPWING_")}
    sandbox = Sandbox(
        folder,
        dataclasses.replace(
            settings,
            home=home,
            port=ports.free_port(set()),
            bind="localhost",
            actor="demo",
            environ=environ,
        ),
    )
    try:
        copy_example(example, sandbox.source, environ, committed=given is None)
        (sandbox.source / ".gitignore").write_text("node_modules/\ndist/\n__pycache__/\n")
        git(sandbox, "init", "--quiet", "--initial-branch", "main")
    except BaseException:
        remove_tree(folder)
        raise
    return sandbox


def git(sandbox: Sandbox, *arguments: str) -> None:
    """Run git in the demo's source. Raises LapwingError with the message of git."""
    identity: dict[str, str] = {}
    for role in ("AUTHOR", "COMMITTER"):
        identity |= {f"GIT_{role}_NAME": "Demo", f"GIT_{role}_EMAIL": "demo@localhost"}
    Git(sandbox.source, {**sandbox.settings.environ, **identity}).text(*arguments)
