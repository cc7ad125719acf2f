"""Lapwing: a real installation, in which `lapwing deploy` and `lapwing rollback` take turns.

A switch here is a whole deployment: a commit, a build, a start of the new version, its health and
smoke test, and only then the change of route. The client's delay counts from the moment at which
the agent begins to switch, as its event log says; the rename of Envoy's route file comes after it.
Each deployment is of a new version, so that none finds its slot warm by chance.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil
from tests.installation import Installation, installation
from tests.integration.switching.service import run

from benchmarks.proxies import nginx
from benchmarks.proxies.contender import Contender, Switched
from benchmarks.proxies.recipe import BenchmarkError
from lapwing.agent import process_tree
from lapwing.load.record import now
from lapwing.targets import local_agent
from lapwing.targets.base import EnvironmentRef

STACK = """
stack: switching
services:
  api:
    build: ./api
    command: python app.py
    route: /
    health: /healthz
    rollout:
      analysis: false
      smoke: [{get: /version, expect: 200}]
"""
FAST = """
  fast:
    build: ./fast
    command: sh run.sh
    route: /fast
    health: /fast
    rollout: {analysis: false}
"""
RUN = """\
folder=$(mktemp -d)
trap 'kill $child; wait $child; rm -rf "$folder"; exit' TERM INT
sed -e "s|@PORT@|$PORT|; s|@FOLDER@|$folder|g" nginx.conf > "$folder/nginx.conf"
PROGRAM -p "$folder" -c "$folder/nginx.conf" & child=$!
wait $child
"""


class Ship:
    """The stack, and the version that is active."""

    def __init__(self, where: Installation) -> None:
        self.where = where
        self.active = "v0"
        self.before = "v0"
        self.count = 0
        program = shutil.which("nginx")
        run.source(where.folder / "api", "v0")
        files = {"lapwing.yaml": STACK + (FAST if program else "")}
        if program:
            text, _ = nginx.backend(program, Path("@FOLDER@"), "@PORT@")
            files["fast/nginx.conf"] = text
            files["fast/run.sh"] = RUN.replace("PROGRAM", program)
            files["fast/requirements.txt"] = "# None.\n"
        where.write(files)
        where.run("up")

    def switch(self) -> Switched:
        """A deployment of a new version, or a rollback of the last one. Raises BenchmarkError if
        it does not succeed."""
        self.count += 1
        verb = "deploy" if self.count % 2 else "rollback"
        new = f"v{self.count}" if verb == "deploy" else self.before
        if verb == "deploy":
            self.where.write({"api/VERSION": new + "\n"})
        listener = local_agent.watch(self.where.settings, EnvironmentRef("switching", "local"))
        called = now()
        answer = self.where.json(verb)
        took = now() - called
        if answer["outcome"] != "succeeded":
            raise BenchmarkError(f"lapwing {verb}: {answer}")
        began = next((e.time for e in listener.read() if e.state == "switching"), None)
        if began is None:
            raise BenchmarkError(f"lapwing {verb} did not switch.")
        self.before, self.active = self.active, new
        return Switched(self.before, new, called, began, took, verb)

    def envoy(self) -> int:
        """The process id of the supervisor of Envoy."""
        for identity, _what in process_tree.owned(self.where.home):
            with contextlib.suppress(psutil.Error):
                if psutil.Process(identity.pid).name().startswith("envoy"):
                    return os.getsid(identity.pid)
        raise BenchmarkError("Envoy does not run.")


@contextlib.contextmanager
def lapwing(root: Path) -> Iterator[Contender]:
    """A stack that runs, for as long as the block runs."""
    with installation(root) as where:
        ship = Ship(where)
        yield Contender(
            "Lapwing",
            "Envoy from its wheel; lapwing deploy and rollback in turn; memory is Envoy's",
            where.target("switching"),
            ship.switch,
            ship.envoy,
        )
