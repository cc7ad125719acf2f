"""A release that does not start, and replicas that fall ill or die while they serve."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from lapwing.agent import processes
from lapwing.load.record import now
from lapwing.observed import agent as observed
from tests.deployed import until
from tests.integration.faults import ship as usual
from tests.integration.faults.ship import Ship, Watchers

pytestmark = pytest.mark.xdist_group("faults-replicas")
STACK = (
    usual.STACK
    + """
  beat:
    kind: worker
    build: ./api
    command: python app.py worker
    env: {MARKS: "@MARKS@"}
    health: {settle: 300ms}
    rollout: {stop_grace: 1s, keep_old: 0s}
"""
)
IMPATIENT = STACK.replace("start_timeout: 30s", "start_timeout: 5s")


def test_release_that_never_listens_is_rejected(ship: Ship, watched: Watchers) -> None:
    ship.stack(IMPATIENT)
    said = ship.rejected("api", deaf=True)
    ship.stack(STACK)
    assert (
        "was rejected: api did not become healthy within 5 s: nothing listens on its port yet."
        in said
    )
    assert f"This is v{ship.number} as web." in said
    assert "The previous release keeps serving" in said


def test_release_that_listens_late_is_deployed(ship: Ship, watched: Watchers) -> None:
    began = now()
    version = ship.deploy("api", start=2)
    assert ship.get().text == version
    ship.whole()
    assert version in until(lambda: watched.answered(began) - {"v0"})


def test_release_that_exits_is_rejected(ship: Ship, watched: Watchers) -> None:
    said = ship.rejected("api", exits=3)
    assert "was rejected: api exited with status 3 during start-up." in said
    assert "It ends before it listens." in said
    [newest, *_] = [e for e in ship.history() if e["outcome"] == "failed"]
    assert newest["reason"] == "api exited with status 3 during start-up."
    assert ship.status()["last_failure"]["commit"] == newest["commit"]
    said = ship.where.run("status").stdout
    assert "was rejected: api exited with status 3 during start-up.\n" in said
    ship.deploy("api")
    assert ship.status()["last_failure"] is None


def test_release_with_failing_health_check_is_rejected(ship: Ship, watched: Watchers) -> None:
    began = now()
    ship.stack(IMPATIENT)
    said = ship.rejected("api", health=500)
    ship.stack(STACK)
    assert "did not become healthy within 5 s: GET /healthz responded with status 500." in said
    assert watched.answered(began) == {ship.version}


def test_release_with_unknown_command_is_rejected(ship: Ship, watched: Watchers) -> None:
    ship.stack(STACK.replace("command: python app.py\n", "command: no-such-program\n"))
    said = ship.rejected("api")
    ship.stack(STACK)
    assert "api exited with status 127 during start-up." in said
    assert "no-such-program" in said


def test_process_ignoring_sigterm_is_killed_after_grace(ship: Ship, watched: Watchers) -> None:
    ship.stack(STACK.replace("keep_old: 10m", "keep_old: 0s"))
    ship.deploy("api", stubborn=True)
    stubborn = ship.pids("active")
    ship.deploy("api")
    ship.stack(STACK)
    until(
        lambda: not any(processes.started(p) for p in stubborn),
        "the end of what ignores SIGTERM",
    )
    ship.whole()


def test_helper_in_another_session_survives_the_agent_and_not_its_replica(
    ship: Ship, watched: Watchers
) -> None:
    ship.stack(STACK.replace("keep_old: 10m", "keep_old: 0s"))
    ship.deploy("api", helper=True)
    helpers = [int(n) for n in (ship.marks / "helpers").read_text().split()]
    assert len(helpers) == 2
    agent = observed.read(ship.where.home / "agent")
    assert agent is not None
    ship.kill(agent.pid)
    ship.where.run("agent", "start")
    ship.recovers()
    assert all(processes.started(h) for h in helpers)
    ship.deploy("api")
    ship.stack(STACK)
    until(lambda: not any(processes.started(h) for h in helpers), "the end of the helpers")


def test_killed_replica_is_restarted(ship: Ship, watched: Watchers) -> None:
    before = ship.service()
    victim, *others = before["active"]["pids"]
    killed = ship.kill(victim)
    watched.forgive(lambda e: e.sent <= killed)  # What it was working on went with it.
    until(lambda: ship.service()["active"]["restarts"] > before["active"]["restarts"])
    ship.recovers()
    after = ship.pids("active")
    assert victim not in after
    assert set(others) < set(after)


def test_get_is_answered_by_another_replica_when_its_replica_is_killed(
    ship: Ship, watched: Watchers
) -> None:
    """Only a request that changes nothing is sent again, so a POST may fail."""
    ship.deploy("api", delay=2)
    watched.forgive(lambda e: e.kind == "body")
    [victim, _] = ship.pids("active")
    with ThreadPoolExecutor(12) as pool:
        requests = [pool.submit(ship.get) for _ in range(12)]
        time.sleep(1)  # The replicas are at work on them.
        ship.kill(victim)
        statuses = Counter(request.result().status_code for request in requests)
    assert statuses == {200: 12}
    ship.recovers()
    ship.deploy("api")


def stays_running(ship: Ship, seconds: float) -> bool:
    """Whether every look at the service in this time finds it running."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if ship.service()["phase"] != "running":
            return False
    return True


def test_unresponsive_replica_gets_no_requests(ship: Ship, watched: Watchers) -> None:
    # A replica that a test before this one killed is ready for the agent before it is for Envoy, so
    # the service can be degraded once more for its sake.
    until(lambda: stays_running(ship, 2), "every replica ready for Envoy, too")
    [victim, _] = ship.pids("active")
    os.kill(victim, signal.SIGSTOP)
    try:
        until(lambda: ship.service()["phase"] == "degraded", "the word of Envoy")
        assert ship.where.json("status", status=1)["services"][0]["active"]["ready"] == 1
        for _ in range(10):
            assert ship.get().text == ship.version
    finally:
        os.kill(victim, signal.SIGCONT)
    ship.recovers()


def test_crashing_worker_is_restarted_with_delays(ship: Ship, watched: Watchers) -> None:
    with ship.crashing():
        [victim] = ship.pids("active", "beat")
        ship.kill(victim)
        until(lambda: ship.service("beat")["active"]["restarts"] >= 3, "three restarts")
        assert ship.service("beat")["phase"] == "crashing"
        assert ship.service("api")["phase"] == "running"
        began, before = time.monotonic(), ship.service("beat")["active"]["restarts"]
        until(lambda: time.monotonic() - began > 2)
        # Pauses double from a tenth of a second on: after 3 restarts there are 2 more at most.
        assert ship.service("beat")["active"]["restarts"] - before <= 2
    ship.recovers()


def test_crashing_replicas_are_restarted_with_delays(ship: Ship, clients: Watchers) -> None:
    with ship.crashing():
        for victim in ship.pids("active"):
            ship.kill(victim)
        until(lambda: ship.service()["active"]["restarts"] >= 4)
        status = ship.where.json("status", status=1)
        api = next(s for s in status["services"] if s["name"] == "api")
        assert (api["phase"], api["active"]["ready"]) == ("crashing", 0)
        assert ship.get().status_code == 503
    ship.recovers()
    until(lambda: ship.get().status_code == 200)
