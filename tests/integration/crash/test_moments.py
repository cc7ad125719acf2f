"""Kill the agent at everything that it writes down, one after the other: each written state is one
that the next agent has to make sense of.

`test_crash.py` kills when a state is entered; here the kill comes at the first write, the second,
and so on, until a deployment has no more of them. So every persisted state is met, before and after
what it announces.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from lapwing.agent import process_tree
from lapwing.load.client import running
from tests.deployed import until
from tests.integration.crash.moments import Moments
from tests.integration.crash.ship import Ship

pytestmark = [pytest.mark.timeout(1800), pytest.mark.xdist_group("crash-moments")]
FEW = 6
"""Fewer writes than any deployment has."""


def good(ship: Ship) -> None:
    """Deploy a good version."""
    version = ship.next_version()
    said = ship.end(ship.begin("deploy"))
    assert said.returncode == 0, said.stdout
    ship.version = version


def bad(ship: Ship) -> None:
    """Deploy a version that fails its test."""
    ship.write("bad")
    said = ship.end(ship.begin("deploy"))
    assert said.returncode == 1, said.stdout
    assert "was rejected" in said.stdout


def kill_at(ship: Ship, number: int, act: Callable[[Ship], None]) -> bool:
    """Act, while the agent is killed at the nth thing that is written; whether there was one. If
    that was after the command had heard of the outcome, nobody has started another agent yet."""
    moments = Moments(ship.where.settings, ship.environment, number, ship.kill_agent)
    try:
        act(ship)
    finally:
        moments.end()
    ship.where.run("agent", "start")
    return moments.acted


@pytest.mark.parametrize("number", [2, 5])
def test_deployment_with_agent_killed_at_a_write(ship: Ship, tmp_path: Path, number: int) -> None:
    with running(ship.plan, tmp_path) as client:
        client.wait_for_answers()
        assert kill_at(ship, number, good)
        ship.check(ship.version)
        ledger = client.stop()
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []


@pytest.mark.slow
@pytest.mark.parametrize("act", [good, bad], ids=lambda a: a.__name__)
def test_deployment_with_agent_killed_at_every_write(
    ship: Ship, tmp_path: Path, act: Callable[[Ship], None]
) -> None:
    with running(ship.plan, tmp_path) as client:
        client.wait_for_answers()
        for number in itertools.count(1):
            met = kill_at(ship, number, act)
            ship.check(ship.version)
            if not met:
                break
        ledger = client.stop()
    assert number > FEW
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []
    assert "bad" not in ledger.versions()


def down_and_up(ship: Ship, number: int) -> bool:
    """Stop everything, while the agent is killed at the nth write; nothing may be left. Then start
    it again. Whether there was such a write."""
    moments = Moments(ship.where.settings, ship.environment, number, ship.kill_agent)
    try:
        said = ship.end(ship.begin("down"))
        assert said.returncode == 0, said.stdout
    finally:
        moments.end()
    ship.where.run("agent", "start")
    until(lambda: not any(w != "envoy" for _, w in process_tree.owned(ship.where.home)))
    ship.where.run("up")
    ship.check(ship.version)
    return moments.acted


def test_down_with_agent_killed_at_its_end(ship: Ship) -> None:
    """What `down` has drained is stopped by the agent that comes next."""
    assert down_and_up(ship, 4)


@pytest.mark.slow
def test_down_with_agent_killed_at_every_write(ship: Ship) -> None:
    for number in itertools.count(1):
        if not down_and_up(ship, number):
            break
    assert number > 4


@pytest.mark.slow
def test_rollback_with_agent_killed_at_every_write(ship: Ship, tmp_path: Path) -> None:
    with running(ship.plan, tmp_path) as client:
        client.wait_for_answers()
        for number in itertools.count(1):
            before = ship.version
            good(ship)

            def back(ship: Ship, version: str = before) -> None:
                said = ship.end(ship.begin("rollback"))
                assert said.returncode == 0, said.stdout
                ship.version = version

            met = kill_at(ship, number, back)
            ship.check(before)
            if not met:
                break
        ledger = client.stop()
    assert number > FEW - 1
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []


def active_replicas(ship: Ship) -> int:
    """How many replicas of the API have traffic."""
    active = ship.memory().of("api", "active")
    return len(active.replicas) if active else 0


@pytest.mark.slow
def test_scale_down_with_agent_killed_at_every_write(ship: Ship) -> None:
    """The surplus is stopped, whoever lives to see it."""
    try:
        for number in itertools.count(1):
            ship.replicas(3)
            ship.where.run("deploy")
            ship.replicas(2)
            moments = Moments(ship.where.settings, ship.environment, number, ship.kill_agent)
            said = ship.end(ship.begin("deploy"))
            moments.end()
            assert said.returncode == 0, said.stdout
            ship.where.run("agent", "start")
            until(lambda: active_replicas(ship) == 2)
            ship.check(ship.version)
            if not moments.acted:
                break
    finally:
        ship.replicas(2)
    assert number > 4
