"""No client sees a switch: every kind of traffic, for as long as releases come and go.

Deployments and rollbacks of two services alternate under load. A failure of a single request fails
the test. The time in which clients were answered by both versions is printed and not judged: it is
a matter of the machine.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lapwing.load.client import Plan, running
from lapwing.load.figures import Switch, switch
from lapwing.load.record import Exchange, Ledger, now
from lapwing.load.worker import Traffic
from tests.conftest import FIGURES
from tests.installation import Installation, installation
from tests.integration.switching.http2 import asking
from tests.integration.switching.renames import renames
from tests.integration.switching.service import run

STACK = """
stack: switching
services:
  api:
    build: ./api
    command: python app.py
    route: /api
    health: /api/healthz
    replicas: 2
    rollout:
      analysis: false
      smoke: [{get: /api/version, expect: 200}]
  web:
    build: ./web
    static: .
    route: /
    rollout: {analysis: false}
"""
TRAFFIC = (
    Traffic(kind="new", path="/api/version", workers=2, interval=0.04),
    Traffic(kind="keep-alive", path="/api/version", workers=4, interval=0.02),
    Traffic(kind="body", path="/api/echo", body='{"number": "{unique}"}', interval=0.05),
    Traffic(kind="slow", path="/api/slow?seconds=2", workers=2),
    Traffic(kind="slow", path="/api/echo", body="{unique}" * 1000, seconds=2, workers=2),
    Traffic(kind="page", path="/", workers=2, interval=0.1, version=r"version (\w+)"),
    Traffic(kind="events", path="/api/events", seconds=2),
    Traffic(kind="events", path="/api/events", seconds=20, workers=2),
    Traffic(kind="websocket", path="/api/ws", seconds=2, interval=0.1),
    Traffic(kind="websocket", path="/api/ws", seconds=20, interval=0.1, workers=2),
)


@dataclass(frozen=True)
class Step:
    """One switch: from which version to which, when the command was given, when the routes of
    clients were renamed into place."""

    old: str
    new: str
    began: float
    renamed: float


class Ship:
    """The stack of two services, and the versions that it went through."""

    def __init__(self, where: Installation, ending: contextlib.ExitStack) -> None:
        self.where = where
        self.versions = ["v0"]
        self.steps: list[Step] = []
        (where.folder / "lapwing.yaml").write_text(STACK)
        self._write("v0")
        where.run("up")
        self._renames = ending.enter_context(renames(where.home / "envoy" / "rds.json"))

    def deploy(self) -> None:
        """A new version of both services."""
        self._write(f"v{len(self.steps) + 1}")
        self._do("deploy", f"v{len(self.steps) + 1}")

    def rollback(self) -> None:
        """Back to the version before: the old slot is warm."""
        self._do("rollback", self.versions[-2])

    def _do(self, verb: str, version: str) -> None:
        began, before = now(), len(self._renames.moments)
        answer = self.where.json(verb)
        assert answer["outcome"] == "succeeded"
        [renamed] = self._renames.moments[before:]  # Both services, in one.
        self.steps.append(Step(self.versions[-1], version, began, renamed))
        self.versions.append(version)

    def _write(self, version: str) -> None:
        run.source(self.where.folder / "api", version, prefix="/api")
        script = f"assets/app-{version:x<8}.js"
        page = f'version {version} <script src="/{script}"></script>'
        web = self.where.folder / "web"
        for old in web.glob("assets/*"):
            old.unlink()
        self.where.write({"web/index.html": page, f"web/{script}": f"// {version}"})

    def seen(self, ledger: Ledger) -> list[Switch]:
        """Each switch, as clients saw it; delays count from the rename of the route file."""
        ends = [s.began for s in self.steps[1:]] + [float("inf")]
        return [
            switch(ledger, s.old, s.new, s.renamed, end)
            for s, end in zip(self.steps, ends, strict=True)
        ]


@pytest.fixture
def ship(tmp_path: Path) -> Iterator[Ship]:
    with installation(tmp_path) as where, contextlib.ExitStack() as ending:
        yield Ship(where, ending)


@pytest.mark.parametrize("count", [20, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.timeout(1800)
def test_no_request_fails_during_deployments(
    ship: Ship, tmp_path: Path, count: int, record_property: Callable[[str, object], None]
) -> None:
    target = ship.where.target("switching")
    plan = Plan(target, TRAFFIC)
    with asking(target, "/api/version") as by_http2, running(plan, tmp_path) as client:
        client.wait_for_answers()
        for number in range(count):
            if number % 3 == 2:
                ship.rollback()
            else:
                ship.deploy()
        ledger = client.stop()
    record_property(FIGURES, _figures(ship, ledger))
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []
    assert len(ledger.races) == 0
    assert {t.kind for t in ledger.totals()} == plan.kinds
    assert set(ship.versions) <= set(ledger.versions())
    # What was open before a switch stays open across it, until the client has had enough.
    streams = [e for e in ledger.exchanges if e.kind in ("events", "websocket")]
    assert {e.ended_by for e in streams} == {"client"}
    assert all(e.messages for e in streams if e.took > 5)
    assert any(_switches_within(ship, e) > 1 for e in streams)
    assert any(_switches_within(ship, e) for e in ledger.exchanges if e.kind == "slow")
    assert by_http2.failures == []
    assert set(ship.versions) <= set(by_http2.versions)


def _switches_within(ship: Ship, exchange: Exchange) -> int:
    """How many switches came while an exchange was going on."""
    return sum(exchange.sent < step.renamed < exchange.ended for step in ship.steps)


def _figures(ship: Ship, ledger: Ledger) -> str:
    """What clients saw of all switches, in a line."""
    seen = ship.seen(ledger)
    figures = {
        "overlap": [s.window for s in seen if s.window is not None],
        "from the rename to the first new answer": [s.delay for s in seen if s.delay is not None],
        "longest wait": [s.longest for s in seen if s.longest is not None],
    }
    words = ", ".join(
        f"{name} {statistics.median(found) * 1000:.1f} ({max(found) * 1000:.1f})"
        for name, found in figures.items()
    )
    return (
        f"{len(seen)} switches, {ledger.sent} requests, {len(ledger.failures)} failed; "
        f"median (max) in ms: {words}"
    )
