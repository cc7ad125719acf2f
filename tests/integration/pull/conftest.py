"""A CI runner and a machine, which share a git server and a registry and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lapwing.desired.history import history
from lapwing.desired.repository import DesiredRepository
from lapwing.observed import pull
from lapwing.stack.load import StackFile
from lapwing.system import home
from lapwing.targets import pull_source
from tests.installation import PATIENCE, Installation
from tests.integration import machine
from tests.needs import require
from tests.registries import Server, docker_registry

STACK = """\
stack: shop
registry: {registry}
services:
  app:
    build: ./app
    command: python app.py
    route: /
    health: {{path: /health, interval: 1s}}
    secrets: [{{name: TOKEN, generate: 20}}{secrets}]
    volumes: {{uploads: uploads}}
    rollout: {{keep_old: 0s, stop_grace: 1s}}
  page: {{build: ./page, static: ., route: /page}}
  seed: {{build: ./app, kind: job, command: "python -c 'print(1 + 1)'"}}
environments:
  production:
    desired: {{url: "{url}", interval: 1s{desired}}}
"""
PAGE = """\
stack: shop
registry: {registry}
services:
  page: {{build: ./page, static: ., route: /{more}}}
environments:
  production:
    desired: {{url: "{url}", interval: 1s{desired}}}
"""


@dataclass
class Pair:
    """`ci` runs `lapwing ship`; the agent of `machine` pulls from `url`."""

    ci: Installation
    machine: Installation
    url: str
    registry: str

    def stack(self, desired: str = "", secrets: str = "") -> str:
        """The stack with a process and a page."""
        return STACK.format(url=self.url, registry=self.registry, desired=desired, secrets=secrets)

    def page(self, desired: str = "", more: str = "") -> str:
        """The stack with a page only, which needs no interpreter."""
        return PAGE.format(url=self.url, registry=self.registry, desired=desired, more=more)

    def ship(self, version: str, *, status: int = 0, **knobs: object) -> str:
        """Ship a version from CI; returns the commit."""
        self.ci.write(
            {
                "app/VERSION": version,
                "app/knobs.json": json.dumps(knobs),
                "page/index.html": f"<h1>{version}</h1>",
            }
        )
        command = ("ship", "-e", "production", "--scan", "off")
        return self.ci.run(*command, status=status).stdout.strip()

    def write(self, text: str) -> None:
        """Write the stack file on both sides."""
        self.ci.write({"lapwing.yaml": text})
        self.machine.write({"lapwing.yaml": text})

    def pull(self) -> int:
        """Pull once, as the agent does, without an agent; returns the exit status."""
        command = [sys.executable, "-m", "lapwing.targets.pull", "shop", "production"]
        return subprocess.run(
            command, env=self.machine.environ, capture_output=True, check=False
        ).returncode

    def refused(self) -> str:
        """Pull once, which has to change nothing; returns the problem."""
        before = self.commits()
        assert self.pull() == 1
        assert self.commits() == before
        settings = self.machine.settings
        shown = pull.state(settings, "shop", "production").problem
        assert shown is not None
        return shown

    def commits(self) -> int:
        """The number of deployments on the machine."""
        repository = DesiredRepository(self.machine.settings.desired)
        return len(history(repository, "shop", "production"))

    def register(self) -> None:
        """Do what `lapwing agent pull` does, without an agent."""
        file = StackFile(self.machine.folder / "lapwing.yaml")
        source = pull_source.read(file.load("production", folders=False))
        home.prepare(self.machine.home)
        pull.set_source(self.machine.settings, "shop", "production", source)

    def follow(self) -> None:
        self.machine.run("agent", "pull", "-e", "production")

    def answer(self, path: str = "/") -> str:
        """What clients get from the machine; nothing while it does not serve."""
        done = subprocess.run(
            [
                *("curl", "-sf", "--noproxy", "*", "--cacert"),
                str(self.machine.home / "certificates" / "ca.pem"),
                *("--resolve", f"production.shop.localhost:{self.machine.port}:127.0.0.1"),
                f"https://production.shop.localhost:{self.machine.port}{path}",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout if done.returncode == 0 else ""

    def wait_for_answer(self, version: str, path: str = "/") -> None:
        wait_for(lambda: self.answer(path) == version, self.log)

    def problem(self) -> str:
        """Why nothing is deployed, as the status shows it."""
        done = self.machine.call("status", "-e", "production", "--output", "json")
        found: dict[str, Any] = json.loads(done.stdout)
        if "error" in found:
            return str(found["error"]["message"])
        return str(found.get("problem") or "")

    def wait_for_problem(self, text: str) -> None:
        wait_for(lambda: text in self.problem(), lambda: f"{self.problem()}\n{self.log()}")

    def log(self) -> str:
        file = self.machine.home / "agent" / "agent.log"
        return file.read_text()[-4000:] if file.exists() else ""


def wait_for(condition: Callable[[], bool], shown: Callable[[], str]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, shown()
        time.sleep(0.1)


@contextmanager
def pair(root: Path, url: str, registry: str, **environ: str) -> Iterator[Pair]:
    ci, where = Installation(root / "ci"), Installation(root / "machine", **environ)
    made = Pair(ci, where, url, registry)
    (made.ci.folder / "app").mkdir()
    shutil.copy(Path(machine.__file__).with_name("app.py"), made.ci.folder / "app")
    made.ci.write({"app/requirements.txt": "# None.\n", "app/uploads/first.txt": "first"})
    try:
        yield made
    finally:
        if (made.machine.home / "agent").exists():
            made.machine.call("agent", "pull", "-e", "production", "--stop")
            made.machine.call("down", "-e", "production")
            made.machine.end()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with docker_registry(require("registry"), tmp_path_factory.mktemp("registry")) as server:
        yield server


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """An empty bare repository for the desired state."""
    folder = tmp_path / "desired.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", folder], check=True)
    return folder


@pytest.fixture
def place(tmp_path: Path, remote: Path, registry: Server) -> Iterator[Pair]:
    with pair(tmp_path, str(remote), f"{registry.host}/{tmp_path.name}") as made:
        made.write(made.stack())
        yield made
