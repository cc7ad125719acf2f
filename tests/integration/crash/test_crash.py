"""Kill what deploys at every step of a deployment: it completes or is undone, and nobody notices.

The agent, Envoy, or everything is killed when a deployment reaches a state, and some milliseconds
later. There is no lock to clear and nothing to repair: the command that waits starts the agent
again, and the next state is a true one. While only the agent dies no client sees a failure.
"""

from __future__ import annotations

import random
import subprocess
import threading
from pathlib import Path

import pytest
from _pytest.mark import ParameterSet

from lapwing.load.client import Client, running
from tests.deployed import PATIENCE
from tests.integration.crash.ship import Ship

STATES = ("resources", "jobs", "starting", "testing", "switching", "analysing", "succeeded")
UNDONE = ("testing", "undoing", "failed")
DELAYS = (0.0, 0.02, 0.1)
pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("crash")]


def few(*values: str | float, fast: bool) -> ParameterSet:
    """A case of the slow lane, unless it is one of the handful that every run takes."""
    return pytest.param(*values, marks=[] if fast else pytest.mark.slow)


def after(thread: threading.Thread, command: subprocess.Popen[str]) -> tuple[int, str]:
    """The status and the words of a command, once it was hurt and has ended."""
    said, _ = command.communicate(timeout=PATIENCE * 2)
    thread.join()
    return command.returncode, said


def unnoticed(client: Client) -> None:
    """No request failed, and some were answered."""
    ledger = client.stop()
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []
    assert ledger.sent > 20


@pytest.mark.parametrize(
    ("state", "delay"),
    [few(s, d, fast=d == 0 and s in ("jobs", "switching")) for s in STATES for d in DELAYS],
)
def test_deployment_completes_after_the_agent_is_killed(
    ship: Ship, tmp_path: Path, state: str, delay: float
) -> None:
    version = ship.next_version()
    with running(ship.plan, tmp_path) as client:
        client.wait_for_answers()
        kill = ship.when(state, ship.kill_agent, delay)
        status, said = after(kill, ship.begin("deploy"))
        assert status == 0, said
        if state == "succeeded":  # The command may have heard of the outcome before the kill.
            ship.where.run("agent", "start")
        ship.check(version)
        unnoticed(client)
    ship.version = version


@pytest.mark.parametrize("state", [few(s, fast=s == "undoing") for s in UNDONE])
def test_bad_deployment_is_undone_after_the_agent_is_killed(
    ship: Ship, tmp_path: Path, state: str
) -> None:
    ship.write("bad")
    with running(ship.plan, tmp_path) as client:
        client.wait_for_answers()
        kill = ship.when(state, ship.kill_agent)
        status, said = after(kill, ship.begin("deploy"))
        assert status == 1, said
        assert "was rejected" in said
        ship.check(ship.version)
        ledger = client.stop()
    assert ledger.failures == []
    assert "bad" not in ledger.versions()


@pytest.mark.slow
def test_paused_deployment_survives_a_kill_of_the_agent(ship: Ship, tmp_path: Path) -> None:
    version = ship.next_version()
    with running(ship.plan, tmp_path) as client:
        client.wait_for_answers()
        held = ship.where.run("deploy", "--hold")
        assert "is paused; no client sees it yet" in held.stderr
        ship.kill_agent()
        assert "The agent is running" in ship.where.run("agent", "start").stderr
        assert ship.answers() == {ship.version}
        ship.where.run("promote")
        ship.check(version)
        unnoticed(client)
    ship.version = version


def test_candidate_that_died_with_the_agent_gets_no_traffic(ship: Ship, tmp_path: Path) -> None:
    version = ship.next_version()
    with running(ship.plan, tmp_path) as client:
        client.wait_for_answers()
        ship.where.run("deploy", "--hold")
        ship.kill_agent()
        memory = ship.memory()
        assert memory.rollout is not None
        candidate = memory.numbered(memory.rollout.candidates["api"])
        assert candidate is not None
        ship.kill_replicas(candidate)
        ship.where.run("agent", "start")
        ship.where.run("promote")
        ship.check(version)
        unnoticed(client)
    ship.version = version


@pytest.mark.parametrize("state", [few(s, fast=s == "switching") for s in STATES[2:]])
def test_killed_envoy_is_restarted_with_its_routes(ship: Ship, state: str) -> None:
    version = ship.next_version()
    kill = ship.when(state, ship.kill_envoy)
    status, said = after(kill, ship.begin("deploy"))
    if status == 1:  # What Envoy could not confirm is undone: that is a true state, too.
        assert "Envoy" in said, said
        version = ship.version
    ship.check(version)
    ship.version = version


@pytest.mark.parametrize("state", [few(s, fast=s == "analysing") for s in STATES])
def test_deployment_after_a_power_failure(ship: Ship, state: str) -> None:
    version = ship.next_version()
    cut = ship.when(state, ship.cut_power)
    status, said = after(cut, ship.begin("deploy"))
    assert status == 0, said
    ship.check(version)
    ship.version = version


@pytest.mark.slow
def test_reboot_restores_running_services(ship: Ship) -> None:
    ship.cut_power()
    ship.where.run("agent", "start")
    ship.check(ship.version)


@pytest.mark.slow
def test_kills_at_random_moments(ship: Ship, tmp_path: Path) -> None:
    """Fifty deployments, good and bad, each with a kill of the agent at a random moment."""
    chance = random.Random(20261124)
    with running(ship.plan, tmp_path) as client:
        client.wait_for_answers()
        for number in range(50):
            bad = number % 5 == 4
            version = ship.version if bad else ship.next_version()
            if bad:
                ship.write("bad")
            kill = ship.when("resources", ship.kill_agent, chance.uniform(0.0, 1.6))
            status, said = after(kill, ship.begin("deploy"))
            assert status == bad, said
            ship.check(version)
            ship.version = version
        unnoticed(client)
