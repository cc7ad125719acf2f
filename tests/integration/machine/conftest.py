"""A small stack that serves under load, to be hurt: whatever is done to it, clients see nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.load.client import Plan, running
from lapwing.load.worker import Traffic
from tests.deployed import Deployed
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


class Yard(Deployed):
    """The stack, and its versions."""

    SERVICE = "app"

    def __init__(self, where: Installation, name: str = NAME) -> None:
        super().__init__(where, name)

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
