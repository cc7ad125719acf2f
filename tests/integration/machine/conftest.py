"""A small stack that serves under load, to be hurt: whatever is done to it, clients see nothing."""

from __future__ import annotations

import json
import shutil
import ssl
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lapwing.desired.repository import DesiredRepository
from lapwing.load.client import Plan, Traffic, running
from tests.installation import Installation, installation

NAME = "faults"
STACK = """
stack: {name}
services:
  app:
    build: ./app
    command: python app.py
    route: /
    health: {{path: /health, start_timeout: 4s, interval: 1s, timeout: 1s}}
    replicas: 2
    rollout:
      {smoke}
      analysis: {{window: 3s, max_error_rate: 5%, max_p95: 300ms, min_requests: 5}}
      keep_old: {keep_old}
      stop_grace: 2s
{more}
"""
PATIENCE = 60.0


class Yard:
    """The stack, and what a person can see of it."""

    def __init__(self, where: Installation, name: str = NAME) -> None:
        self.where = where
        self.name = name
        self.environment = where.settings.environment(name, "local")
        self.target = where.target(name)
        self.repository = DesiredRepository(where.settings.desired)

    def stack(self, smoke: str = "smoke: []", keep_old: str = "1h", more: str = "") -> None:
        """Write the stack file."""
        text = STACK.format(name=self.name, smoke=smoke, keep_old=keep_old, more=more)
        (self.where.folder / "lapwing.yaml").write_text(text)

    def write(self, version: str, **knobs: object) -> None:
        """Write and commit a version of the service."""
        app = self.where.folder / "app"
        app.mkdir(exist_ok=True)
        shutil.copy(Path(__file__).with_name("app.py"), app)
        self.where.write(
            {
                "app/VERSION": version,
                "app/knobs.json": json.dumps(knobs),
                "app/requirements.txt": "# The standard library is enough.\n",
            }
        )

    def good(self, version: str) -> None:
        """Deploy a version that has nothing wrong with it."""
        self.stack()
        self.write(version)
        self.where.run("deploy")

    def rejected(self, *arguments: str) -> str:
        """Deploy what has to be rejected; returns what was said."""
        before = self.released()
        said = self.where.run("deploy", *arguments, status=1).stderr
        assert "Traceback" not in said
        assert self.released() == before
        assert self.wanted() == before, "the head of the desired state is what runs"
        newest = self.where.json("history")
        assert newest[0]["kind"] == "revert"
        assert newest[1]["outcome"] in ("failed", "rolled-back")
        return said

    def status(self) -> dict[str, Any]:
        """What `lapwing status` says, whatever its exit status is."""
        done = self.where.call("status", "--output", "json")
        assert done.returncode in (0, 1), done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def service(self, name: str = "app") -> dict[str, Any]:
        """The status of one service."""
        return next(s for s in self.status()["services"] if s["name"] == name)

    def until(self, holds: Callable[[], object]) -> None:
        """Return when something holds."""
        end = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < end, self.status()
            time.sleep(0.05)

    def released(self) -> str:
        """The release that has the traffic, as the status says."""
        return str(self.service()["active"]["release"])

    def wanted(self) -> str:
        """The release that the head of the desired state wants."""
        document = self.repository.read(self.name, "local")
        assert document is not None
        return document.services["app"].release

    def get(self, path: str = "/", host: str | None = None) -> httpx.Response:
        """Ask as a client does; by the stack's own host name if no other is given."""
        name = host or f"{self.name}.localhost"
        context = ssl.create_default_context(cafile=self.target.authority)
        with httpx.Client(verify=context, trust_env=False, timeout=10.0) as client:
            return client.get(
                f"https://127.0.0.1:{self.where.port}{path}",
                headers={"host": f"{name}:{self.where.port}"},
                extensions={"sni_hostname": name},
            )


TRAFFIC = (
    Traffic(kind="new", path="/", interval=0.05),
    Traffic(kind="keep-alive", path="/", workers=2, interval=0.03),
)


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    """A stack that serves, for all tests of a module: each has to leave it serving."""
    with installation(tmp_path_factory.mktemp("faults")) as where:
        made = Yard(where)
        made.stack()
        made.write("first")
        where.run("up")
        yield made


@pytest.fixture
def unnoticed(yard: Yard, tmp_path: Path) -> Iterator[None]:
    """Load for the time of a test, of which no request may fail."""
    with running(Plan(yard.target, TRAFFIC), tmp_path) as client:
        client.wait_for_answers()
        yield
        ledger = client.stop()
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []
    assert ledger.races == []
