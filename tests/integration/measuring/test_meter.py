"""What the agent measures of a real stack under load, and what the review makes of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lapwing.agent import state
from lapwing.agent.meter import Meter
from lapwing.agent.proxy import instances
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.load.client import Plan, drive, running
from lapwing.load.record import Exchange
from lapwing.load.worker import Traffic
from lapwing.observed import usage
from lapwing.observed.usage import STEP, Buckets
from lapwing.settings import Settings, read
from tests.installation import PATIENCE, Installation, installation

MIB = 2**20
WORK = 0.005
"""Seconds of CPU that a request costs."""
APP = f"""
import os, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = bytearray(os.urandom(1024) * 1024 * 64)

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        began = time.thread_time()
        while time.thread_time() - began < {WORK}: pass
        self.send_response(200)
        self.send_header("X-Release", "one")
        self.send_header("Content-Length", "3")
        self.end_headers()
        self.wfile.write(b"one")

    def log_message(self, *_): pass

ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
STACK = """
stack: measured
services:
  api:
    build: ./api
    command: python app.py
    route: /
    replicas: 2
    resources: {cpu: 2, memory: 2Gi}
    rollout: {analysis: false}
  idle: {build: ./api, command: sleep 100000}
environments:
  production: {target: kubernetes, cloud: {provider: gcp, region: us-central1}}
"""
EACH = 0.05
"""Seconds between two requests of the load."""


@contextmanager
def running_stack(root: Path) -> Iterator[Installation]:
    with installation(root) as made:
        made.write({"lapwing.yaml": STACK, "api/app.py": APP, "api/requirements.txt": "# None.\n"})
        made.run("up")
        yield made


def plan(where: Installation) -> Plan:
    return Plan(where.target("measured"), (Traffic(kind="new", path="/", interval=EACH),))


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[Installation]:
    """The stack, without load."""
    with running_stack(tmp_path / "quiet") as made:
        yield made


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The stack, under load."""
    root = tmp_path_factory.mktemp("measured")
    with running_stack(root) as made, running(plan(made), root) as client:
        client.wait_for_answers()
        yield made


def until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def total(buckets: Buckets, least: float) -> float:
    """The sum of what was counted, up to 5 % too high."""
    return sum(count * least * STEP**bucket for bucket, count in buckets.items() if bucket >= 0)


async def running_envoy(settings: Settings) -> Envoy:
    """Return the Envoy that is running, to read its counters; the agent keeps it running."""
    envoy = Envoy(settings)
    found = await instances.find(envoy.folder, envoy._config())
    assert found is not None
    envoy.admin = found.admin
    return envoy


async def test_cpu_memory_and_requests_match_the_load(quiet: Installation, tmp_path: Path) -> None:
    """CPU, memory and requests between two looks agree with each other and with the load. It
    begins and ends between them, so that a machine that is slow to look tells the same."""
    memory = state.load(quiet.settings.environment("measured", "local"))
    assert memory is not None
    elsewhere = read({"LAPWING_HOME": str(tmp_path)})
    envoy = await running_envoy(quiet.settings)
    watch = Meter(elsewhere, envoy, lambda: [memory])
    exchanges: list[Exchange] = []
    stop = asyncio.Event()
    await watch.measure()
    asyncio.get_running_loop().call_later(2, stop.set)
    await drive(plan(quiet), exchanges.append, stop)
    await watch.measure()
    await envoy.admin.close()
    assert {e.failure for e in exchanges} == {None}
    written = usage.read(elsewhere.environment("measured", "local"))
    assert set(written.services) == {"api", "idle"}
    hour = written.services["api"].hours[-1]
    assert hour.seconds >= 2
    assert hour.requests == len(exchanges) > 0
    each = total(hour.cpu, usage.LEAST_CPU) * hour.seconds / hour.requests
    assert WORK * 0.8 <= each <= WORK * 1.05 + 0.02, "CPU seconds of a request"
    assert sum(hour.cpu.values()) == 2, "one sample of each replica"
    assert 64 * MIB <= hour.memory < 160 * MIB
    idle = usage.summary(written.services["idle"])
    assert idle is not None
    assert idle.cpu < 0.01
    assert idle.memory < 16 * MIB
    assert (idle.rate, idle.requests) == (None, 0)


async def test_usage_survives_a_restart_of_the_agent(where: Installation, tmp_path: Path) -> None:
    """A new meter goes on with the file of the last one."""
    memory = state.load(where.settings.environment("measured", "local"))
    assert memory is not None
    elsewhere = read({"LAPWING_HOME": str(tmp_path)})
    counts = []
    for _ in range(2):
        envoy = await running_envoy(where.settings)
        watch = Meter(elsewhere, envoy, lambda: [memory])
        await watch.measure()
        await asyncio.sleep(0.2)
        await watch.measure(memory=False)
        await envoy.admin.close()
        written = usage.read(elsewhere.environment("measured", "local"))
        counts.append(sum(sum(h.cpu.values()) for h in written.services["api"].hours))
    assert counts == [2, 4]


def test_review_uses_measured_usage(where: Installation) -> None:
    folder = where.settings.environment("measured", "local")
    until(lambda: usage.read(folder).services)
    found = where.json("review")
    (api,) = (f for f in found if f["rule"] == "sizing/too-early" and "`api`" in f["evidence"])
    assert "in `local`, measured for" in api["evidence"]
    assert "requests per second" in api["evidence"]
    assert api["environment"] == "production"
    status = where.json("status")
    assert set(status["used"]) == {"api", "idle"}
    assert 64 * MIB <= status["used"]["api"]["memory"] < 160 * MIB
    assert 0 < status["used"]["api"]["requests"] <= 1.05 / EACH + 1
    shown = where.run("status").stdout.split("\n\n")[-1].splitlines()
    assert shown[0].split("  ")[0] == "USED PER REPLICA"
    assert [line.split()[0] for line in shown[1:]] == ["api", "idle"]
    measured = usage.read(folder)
    api_usage = measured.services["api"]
    api_usage.hours[-1].seconds = 25 * 3600.0
    usage.write(folder, measured)
    (large,) = (f for f in where.json("review") if f["rule"] == "sizing/too-large")
    assert "of 2000m and 2048Mi" in large["evidence"]
    assert large["advice"].startswith("If `production` has no more traffic than `local`, request ")
    assert large["saves"] > 0


def test_damaged_usage_file_does_not_stop_the_meter(where: Installation) -> None:
    folder = where.settings.environment("measured", "local")
    (folder / usage.FILE).write_bytes(b"\0" * 10)
    found = where.json("review")
    assert "sizing/not-measured" in {f["rule"] for f in found}
    assert where.json("status")["services"][0]["phase"] == "running"
