"""Autoscaling on a machine: real replicas, Envoy and load. No request fails when replicas are added
and removed, and a restarted agent continues with the number that there was."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lapwing.agent import process_tree
from lapwing.load.client import Plan, running
from lapwing.load.worker import Traffic
from lapwing.observed import agent
from tests.deployed import Deployed, until
from tests.installation import installation

pytestmark = [pytest.mark.timeout(280), pytest.mark.xdist_group("scaling")]
NAME = "scaling"
APP = """
import os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep({"/slow": 1.5, "/long": 300}.get(self.path, 0))
        self.send_response(200)
        self.send_header("X-Release", "one")
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"one")

    def log_message(self, *_): pass

while os.path.exists("@SLOW@"):
    time.sleep(0.1)
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
STACK = """
stack: scaling
services:
  api:
    build: ./api
    command: python app.py
    route: /
    resources: {cpu: 4}
    replicas: {min: 1, max: 3, requests: 2, scale_down_after: 20s}
    health: {interval: 1s}
    rollout: {analysis: false, stop_grace: 2s, keep_old: 0s}
"""
STEADY = Traffic(kind="new", path="/", interval=0.05)
LOAD = Traffic(kind="new", path="/slow", workers=8, interval=0.05)


class Scaled(Deployed):
    """The stack, and how many replicas have traffic. While `slow` exists, none can start."""

    @property
    def slow(self) -> Path:
        return self.where.folder.parent / "slow"

    def write(self, release: str) -> None:
        app = APP.replace('"one"', f'"{release}"').replace("@SLOW@", str(self.slow))
        files = {"api/app.py": app, "api/requirements.txt": "# None.\n"}
        self.where.write({"lapwing.yaml": STACK, **files})

    def replicas(self) -> int:
        active = self.memory().of("api", "active")
        return len(active.replicas) if active else 0

    def events(self) -> list[str]:
        lines = (self.environment / "events.jsonl").read_text().splitlines()
        found: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [e["text"] for e in found if e["kind"] == "replica"]


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scaled]:
    with installation(tmp_path_factory.mktemp("scaling")) as where:
        made = Scaled(where, NAME)
        made.write("one")
        where.run("up")
        yield made


def test_replicas_follow_the_load_without_a_failed_request(scaled: Scaled, tmp_path: Path) -> None:
    """Requests of 1.5 s are in progress on replicas that are removed."""
    (tmp_path / "steady").mkdir()
    (tmp_path / "load").mkdir()
    with running(Plan(scaled.target, (STEADY,)), tmp_path / "steady") as steady:
        steady.wait_for_answers()
        with running(Plan(scaled.target, (LOAD,)), tmp_path / "load") as load:
            load.wait_for_answers()
            until(lambda: scaled.replicas() == 3, "3 replicas", 0.5)
            found = scaled.service()["scaling"]
            assert (found["min"], found["max"], found["wanted"]) == (1, 3, 3)
            assert "requests in progress, target 2" in found["reason"]
            text = scaled.where.run("status").stdout
            assert "Autoscaling of api: 3 wanted (1 to 3): each has" in text
            held = load.stop()
        until(lambda: scaled.replicas() == 1, "1 replica", 0.5)
        until(lambda: len(scaled.memory().with_processes) == 1, "the end of the others", 0.5)
        kept = steady.stop()
    assert [(e.kind, e.failure) for e in (*held.failures, *kept.failures)] == []
    added = [e for e in scaled.events() if e.startswith("Scaled api from 1 to ")]
    assert added
    assert "requests in progress" in added[0]
    assert " to 1 replica: " in scaled.events()[-1]


def test_scaled_replicas_outlive_the_agent_and_a_deployment(scaled: Scaled, tmp_path: Path) -> None:
    with running(Plan(scaled.target, (LOAD,)), tmp_path) as load:
        load.wait_for_answers()
        until(lambda: scaled.replicas() == 3, "3 replicas", 0.5)
        active = scaled.memory().of("api", "active")
        assert active is not None
        pids = {r.pid for r in active.replicas}
        record = agent.read(scaled.where.settings.agent)
        assert record is not None
        os.kill(record.pid, signal.SIGKILL)
        scaled.where.run("agent", "start")
        adopted = scaled.memory().of("api", "active")
        assert adopted is not None
        assert {r.pid for r in adopted.replicas} == pids
        scaled.write("two")
        scaled.where.run("deploy")
        assert scaled.replicas() == 3, "A deployment under load begins with as many replicas."
        ledger = load.stop()
    assert [(e.kind, e.failure) for e in ledger.failures] == []


def test_replicas_follow_the_load_while_a_deployment_is_paused(
    scaled: Scaled, tmp_path: Path
) -> None:
    """At its promotion, the new release gets as many replicas before it gets the traffic."""
    until(lambda: scaled.replicas() == 1, "1 replica", 0.5)
    scaled.write("six")
    scaled.where.run("deploy", "--hold")
    candidate = scaled.memory().of("api", "candidate")
    assert candidate is not None
    assert len(candidate.replicas) == 1
    with running(Plan(scaled.target, (LOAD,)), tmp_path) as load:
        load.wait_for_answers()
        until(lambda: scaled.replicas() == 3, "3 replicas", 0.5)
        assert scaled.get().headers["x-release"] == "two"
        scaled.where.run("promote")
        active = scaled.memory().of("api", "active")
        assert active is not None
        assert (active.number, len(active.replicas)) == (candidate.number, 3)
        assert scaled.get().headers["x-release"] == "six"
        ledger = load.stop()
    assert [(e.kind, e.failure) for e in ledger.failures] == []


def test_agent_that_stops_while_replicas_start_leaves_none(scaled: Scaled, tmp_path: Path) -> None:
    """The next agent ends the process that was starting."""
    until(lambda: scaled.replicas() == 1, "1 replica", 0.5)

    def processes() -> int:
        found = process_tree.owned(scaled.where.home)
        return sum(owner.startswith(f"{NAME}/local/api/") for _, owner in found)

    scaled.slow.touch()
    until(lambda: processes() == 1, "one process")
    with running(Plan(scaled.target, (LOAD,)), tmp_path) as load:
        load.wait_for_answers()
        until(lambda: processes() > 1, "the start of a replica")
        scaled.where.run("agent", "stop")
        ledger = load.stop()
    assert scaled.replicas() == 1
    scaled.where.run("agent", "start")
    until(lambda: processes() == 1, "the end of the process that was starting")
    scaled.slow.unlink()
    log = (scaled.where.settings.agent / "agent.log").read_text()
    assert "Task was destroyed" not in log
    assert [(e.kind, e.failure) for e in ledger.failures] == []


def test_down_ends_long_requests_of_removed_replicas(scaled: Scaled) -> None:
    """Without `down`, they have up to `rollout.drain`."""
    scaled.where.write({"lapwing.yaml": STACK.replace("min: 1, max: 3, requests: 2", "min: 3")})
    scaled.where.run("deploy")
    target = scaled.target
    context = target.tls()
    with contextlib.ExitStack() as held:
        for _ in range(9):
            raw = socket.create_connection(("127.0.0.1", scaled.where.port))
            host = target.host.partition(":")[0]
            connection = context.wrap_socket(raw, server_hostname=host) if context else raw
            held.enter_context(contextlib.closing(connection))
            connection.sendall(f"GET /long HTTP/1.1\r\nHost: {target.host}\r\n\r\n".encode())
        until(lambda: scaled.replicas() == 3, "3 replicas")
        scaled.where.write({"lapwing.yaml": STACK.replace("min: 1, max: 3, requests: 2", "min: 1")})
        scaled.where.run("deploy")
        assert "Autoscaling" not in scaled.where.run("status").stdout
        assert len(scaled.memory().with_processes) > 1
        scaled.where.run("down")
