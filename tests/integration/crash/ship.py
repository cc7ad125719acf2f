"""A stack whose deployments go through every state, and what must be true after a crash."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

from lapwing.agent import processes, state
from lapwing.agent.state import Generation
from lapwing.load.client import Plan
from lapwing.load.worker import Traffic
from lapwing.observed import agent as observed
from tests.deployed import PATIENCE, Deployed
from tests.installation import LAPWING, Installation, envoys
from tests.integration.crash.runtimes import Processes
from tests.integration.switching.service import run

STACK = """
stack: @NAME@
services:
  api:
    build: ./api
    command: python app.py
    route: /api
    health: /api/healthz
    replicas: 2
    rollout:
      smoke: [{get: /api/version, expect: 200}, {run: python check.py}]
      analysis: {window: 1s, max_error_rate: 50%}
      keep_old: 1h
  web:
    build: ./web
    static: .
    route: /
    rollout: {analysis: false, keep_old: 1h}
  migrate:
    kind: job
    build: ./api
    command: python migrate.py
"""
CHECK = """\
import pathlib, sys, time
time.sleep(0.1)
sys.exit("bad" in pathlib.Path("VERSION").read_text())
"""
TRAFFIC = (
    Traffic(kind="new", path="/api/version", interval=0.05),
    Traffic(kind="keep-alive", path="/api/version", workers=2, interval=0.02),
    Traffic(kind="body", path="/api/echo", body='{"number": "{unique}"}', interval=0.05),
    Traffic(kind="slow", path="/api/slow?seconds=1"),
    Traffic(kind="page", path="/", interval=0.1, version=r"version (\w+)"),
    Traffic(kind="events", path="/api/events", seconds=1),
    Traffic(kind="websocket", path="/api/ws", seconds=1, interval=0.1),
)


class Ship(Deployed):
    """The stack, its versions, and ways to hurt what runs it."""

    def __init__(
        self, where: Installation, name: str = "crash", runtime: Processes | None = None
    ) -> None:
        super().__init__(where, name)
        self._runtime = runtime or Processes()
        self.plan = Plan(self.target, TRAFFIC)
        self.version = "v0"
        self._number = 0
        self._stack = self._runtime.stack(STACK.replace("@NAME@", name))
        (where.folder / "lapwing.yaml").write_text(self._stack)
        self.write("v0")
        where.run("up")

    def write(self, version: str) -> None:
        """The sources of a version of every service. A version that is `bad` fails its tests."""
        api = self.where.folder / "api"
        run.source(api, version, prefix="/api")
        self.where.write(
            {
                "api/check.py": CHECK,
                "api/migrate.py": "import time; time.sleep(0.1)\n",
                "web/index.html": f"version {version}",
            }
        )

    def next_version(self) -> str:
        """The sources of a new version, good ones."""
        self._number += 1
        self.write(f"v{self._number}")
        return f"v{self._number}"

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command, and do not wait for it."""
        return self.where.begin(*arguments, stderr=subprocess.STDOUT)

    def end(self, command: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
        """Wait for the end of a command that was begun."""
        said, _ = command.communicate(timeout=PATIENCE * 2)
        return subprocess.CompletedProcess(command.args, command.returncode, said)

    def replicas(self, number: int) -> None:
        """Want another number of replicas of the API."""
        text = self._stack.replace("replicas: 2", f"replicas: {number}")
        (self.where.folder / "lapwing.yaml").write_text(text)

    def when(self, reached: str, act: Callable[[], None], delay: float = 0.0) -> threading.Thread:
        """Act as soon as the rollout that comes next reaches a state (and some time later)."""
        path = self.environment / "events.jsonl"
        offset = path.stat().st_size

        def watch() -> None:
            until = time.monotonic() + PATIENCE
            mark = f'"state":"{reached}"'.encode()
            while time.monotonic() < until:
                with path.open("rb") as file:
                    file.seek(offset)
                    if mark in file.read():
                        time.sleep(delay)
                        act()
                        return
                time.sleep(0.001)

        thread = threading.Thread(target=watch)
        thread.start()
        return thread

    # What can be hurt

    def kill_agent(self) -> None:
        """kill -9 the agent."""
        pid = observed.holder(self.where.home / "agent")
        if pid is not None:
            _kill(pid)

    def kill_envoy(self) -> None:
        """kill -9 all processes of Envoy."""
        for pid in envoys(self.where.home):
            _kill(pid)

    def kill_replicas(self, generation: Generation) -> None:
        """kill -9 all replicas of a generation."""
        for owner in self._owners(generation):
            self._runtime.kill(self.where.home, owner)

    def cut_power(self) -> None:
        """End everything at once, and let the boot look like another one."""
        self.kill_agent()
        self._runtime.cut_power(self.where.home)
        for path in (self.where.home / "environments").glob("*/*/state.json"):
            memory = state.load(path.parent)
            assert memory is not None
            memory.boot = f"another boot {random.random()}"
            state.save(path.parent, memory)

    # What has to be true

    def settle(self) -> dict[str, Any]:
        """The status, once nothing is on its way and everything that should run does."""
        until = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(
                [LAPWING, "status", "--output", "json"],
                cwd=self.where.folder, env=self.where.environ, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            status: dict[str, Any] = json.loads(done.stdout)
            well = done.returncode == 0 and status["agent"]["running"] and not status["rollout"]
            if well or time.monotonic() > until:
                assert well, done.stdout + done.stderr
                return status
            time.sleep(0.05)

    def check(self, version: str) -> None:
        """Everything is whole, tells the truth, and answers with a version."""
        status = self.settle()
        repository = self.repository
        assert repository.verify() == []
        wanted = repository.read(self.name, "local")
        assert wanted is not None
        for service in status["services"]:
            if service["kind"] != "job":
                assert service["active"]["release"] == wanted.services[service["name"]].release
                assert service["active"]["ready"] == service["active"]["replicas"]
        assert self.where.run("verify").returncode == 0
        assert self.answers() == {version}
        self._check_processes()
        entries = self.history()
        assert "in-progress" not in {e["outcome"] for e in entries}, entries
        for service in status["services"]:
            if service["kind"] != "job":
                newest = entries[0]["services"][service["name"]]
                assert newest["release"] == service["active"]["release"], entries[0]

    def answers(self) -> set[str]:
        """The versions that answer now, of the API and of the page."""
        found = set()
        for path in ("/api/version", "/api/version", "/"):
            answer = self.get(path)
            assert answer.status_code == 200, answer.text
            found.add(answer.text.removeprefix("version ").strip())
        return found

    def _check_processes(self) -> None:
        """What runs of this stack is what the agent has written down, no more and no less."""
        until = time.monotonic() + PATIENCE
        while True:
            known = sorted(o for g in self.memory().generations for o in self._owners(g))
            owners = self._runtime.owners(self.where.home)
            running = sorted(owner for owner in owners if owner.startswith(f"{self.name}/"))
            if running == known:
                return
            assert time.monotonic() < until, (running, known)
            time.sleep(0.1)

    def _owners(self, generation: Generation) -> list[str]:
        prefix = f"{self.name}/local/{generation.service}/{generation.label}"
        return [f"{prefix}/{replica.index}" for replica in generation.replicas]


def _kill(pid: int) -> None:
    """kill -9, and wait until it is gone: a child of an agent that is dead is nobody's child."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    until = time.monotonic() + PATIENCE
    while processes.started(pid) is not None and time.monotonic() < until:
        time.sleep(0.001)
