"""A stack with faults to order, clients that watch it, and words for what is asked of it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lapwing.load.client import Client, Plan
from lapwing.load.record import Exchange, now
from lapwing.load.worker import Traffic
from tests.deployed import PATIENCE, Deployed, until
from tests.installation import Installation

APP = Path(__file__).with_name("service") / "app.py"
NAME = "faults"
STACK = """
stack: faults
services:
  api:
    build: ./api
    command: python app.py
    route: /
    health: {path: /healthz, start_timeout: 30s, interval: 500ms, timeout: 1s}
    replicas: 2
    env: {MARKS: "@MARKS@"}
    rollout: {analysis: false, keep_old: 10m, stop_grace: 1s}
"""
TRAFFIC = (
    Traffic(kind="new", path="/version", interval=0.1),
    Traffic(kind="keep-alive", path="/version", interval=0.05, workers=2),
    Traffic(kind="body", path="/echo", body='{"number": "{unique}"}', interval=0.1),
)


class Ship(Deployed):
    """The stack, in a home of its own. `up` has to come first."""

    PATH = "/version"

    def __init__(self, where: Installation, stack: str = STACK, name: str = NAME) -> None:
        super().__init__(where, name)
        self.marks = where.folder.parent / "marks"
        self.marks.mkdir(exist_ok=True)
        self.version = "none"
        self.number = 0
        self.stack(stack)

    def stack(self, text: str) -> None:
        """The stack file that counts from now on."""
        (self.where.folder / "lapwing.yaml").write_text(text.replace("@MARKS@", str(self.marks)))

    def write(self, version: str, **faults: Any) -> None:
        """The source of a version, with its faults, committed."""
        api = self.where.folder / "api"
        api.mkdir(exist_ok=True)
        shutil.copy(APP, api)
        words = json.dumps({"version": version, **faults})
        self.where.write({"api/faults.json": words, "api/requirements.txt": "# Nothing.\n"})

    def up(self) -> None:
        """The first version."""
        self.write("v0")
        self.where.run("up")
        self.version = "v0"

    def next(self, **faults: Any) -> str:
        """The source of a new version; returns its name."""
        self.number += 1
        version = f"v{self.number}"
        self.write(version, **faults)
        return version

    def deploy(self, *arguments: str, **faults: Any) -> str:
        """Bring a new version to traffic; returns its name."""
        version = self.next(**faults)
        self.where.run("deploy", *arguments)
        self.version = version
        return version

    def rejected(self, *arguments: str, **faults: Any) -> str:
        """Have a new version rejected; returns what the command said on stderr. What ran before
        goes on as if nothing had been."""
        before = self.pids("active")
        self.next(**faults)
        done = self.where.run("deploy", *arguments, status=1)
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        self.whole()
        assert self.pids("active") == before
        return done.stderr

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Begin a command, and do not wait for it."""
        return self.where.begin(*arguments)

    # What is

    def pids(self, slot: str, name: str = "api") -> list[int]:
        """The processes of a slot: `active` or `idle`."""
        found = self.service(name)[slot]
        return found["pids"] if found else []

    def listen(self) -> Callable[[str], bool]:
        """Begin to listen to the event log. What is returned tells whether a rollout has entered a
        state since."""
        path = self.environment / "events.jsonl"
        offset = path.stat().st_size
        return lambda state: f'"state":"{state}"'.encode() in path.read_bytes()[offset:]

    def whole(self) -> None:
        """The status is well and true, the head of the desired state is what runs, and that is the
        version that the tests know."""
        status = self.where.json("status")
        assert status["rollout"] is None
        assert status["problem"] is None
        wanted = self.repository.read(self.name, "local")
        assert wanted is not None
        for service in status["services"]:
            if service["kind"] == "job":
                continue
            assert service["phase"] == "running"
            assert service["active"]["release"] == wanted.services[service["name"]].release
            assert service["active"]["ready"] == service["active"]["replicas"]
            for pid in service["active"]["pids"]:
                os.kill(pid, 0)
        assert self.get().text == self.version

    def recovers(self) -> None:
        """It becomes whole again, by itself."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.whole()
                return
            except AssertionError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)

    def kill(self, pid: int) -> float:
        """Send SIGKILL and wait until all threads are gone; return the time after that.

        A process whose first thread is a zombie may still accept connections for the others.
        """
        descriptor = os.pidfd_open(pid)
        try:
            os.kill(pid, signal.SIGKILL)
            ended, _, _ = select.select([descriptor], [], [], PATIENCE)
            assert ended, f"process {pid} is still there {PATIENCE} s after SIGKILL"
            return now()
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def crashing(self) -> Iterator[None]:
        """Every process that begins meanwhile dies at once."""
        mark = self.marks / "crash"
        mark.touch()
        try:
            yield
        finally:
            mark.unlink()


class Watchers:
    """Clients of a ship, and what they may not meet."""

    def __init__(self, ship: Ship, folder: Path) -> None:
        self._client = Client(Plan(ship.where.target(ship.name), TRAFFIC), folder / "record.jsonl")
        self._client.wait_for_answers()
        self._forgiven: list[Callable[[Exchange], bool]] = []

    def forgive(self, failure: Callable[[Exchange], bool]) -> None:
        """Failures that this test is about."""
        self._forgiven.append(failure)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """No request may fail meanwhile, and some have to be answered."""
        self._forgiven = []
        began = now()
        yield
        until(lambda: any(e.answered for e in self._since(began)), "an answer to a client")
        failed = [e for e in self._since(began) if e.failure is not None]
        unexpected = [e for e in failed if not any(known(e) for known in self._forgiven)]
        assert unexpected == [], unexpected[:5]

    def answered(self, began: float) -> set[str | None]:
        """The versions that have answered since a moment."""
        return {e.version for e in self._since(began) if e.answered is not None}

    def failed(self, began: float) -> list[Exchange]:
        """What has failed since a moment."""
        return [e for e in self._since(began) if e.failure is not None]

    def _since(self, began: float) -> list[Exchange]:
        return self._client.ledger().between(began, float("inf")).exchanges

    def end(self) -> None:
        """Stop them."""
        self._client.stop()
