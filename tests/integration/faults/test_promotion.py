"""Hold, promote, abort, roll back, stop: each does what it says, and nobody notices."""

from __future__ import annotations

import subprocess

import pytest

from lapwing.agent import processes
from lapwing.load.record import now
from tests.deployed import until
from tests.installation import LAPWING
from tests.integration.faults import ship as usual
from tests.integration.faults.ship import Ship, Watchers

pytestmark = pytest.mark.xdist_group("faults-promotion")
STACK = (
    usual.STACK
    + """
  beat:
    kind: worker
    build: ./api
    command: python app.py worker
    env: {MARKS: "@MARKS@"}
    health: {settle: 200ms}
    rollout: {stop_grace: 1s, keep_old: 10m}
"""
)


def hold(ship: Ship) -> str:
    """A new version that waits; returns its name."""
    version = ship.next()
    done = ship.where.run("deploy", "--hold")
    assert "is paused; no client sees it yet" in done.stderr
    assert done.stdout == f"Preview: https://preview.faults.localhost:{ship.where.port}\n"
    assert ship.status()["rollout"]["state"] == "holding"
    assert ship.service()["phase"] == "held"
    assert ship.get().text == ship.version
    assert ship.get(host="preview.faults.localhost").text == version
    return version


def test_hold_and_promote(ship: Ship, watched: Watchers) -> None:
    began = now()
    version = hold(ship)
    candidates = ship.pids("idle")
    again = ship.where.run("deploy")
    assert "of the same content is paused.\nRun `lapwing promote -e local`" in again.stderr
    assert again.stdout.startswith("Preview: https://preview.faults.localhost:")
    assert watched.answered(began) <= {ship.version}
    assert "Promoted" in ship.where.run("promote").stderr
    ship.version = version
    ship.whole()
    assert ship.pids("active") == candidates
    assert [e["outcome"] for e in ship.history()[:2]] == ["succeeded", "succeeded"]


def test_hold_and_abort(ship: Ship, watched: Watchers) -> None:
    began = now()
    before = ship.pids("active")
    hold(ship)
    candidates = ship.pids("idle")
    ship.where.run("abort")
    until(lambda: not any(processes.started(p) for p in candidates))
    ship.whole()
    assert ship.pids("active") == before
    aborted = ship.history()[1]
    assert (aborted["outcome"], aborted["reason"]) == ("aborted", "aborted by tester")
    assert watched.answered(began) == {ship.version}


def test_rollback_after_an_abort_needs_no_start(ship: Ship, watched: Watchers) -> None:
    """The candidate took the slot of the release before, but not its processes."""
    before = ship.version
    ship.deploy()
    warm = ship.pids("idle")
    hold(ship)
    assert ship.pids("idle") != warm
    ship.where.run("abort")
    assert ship.pids("idle") == warm
    ship.where.run("rollback")
    ship.version = before
    assert ship.pids("active") == warm
    ship.whole()


def test_rollback_of_a_paused_deployment_is_an_abort_after_a_rejected_one(
    ship: Ship, watched: Watchers
) -> None:
    try:
        ship.stack(STACK.replace("start_timeout: 30s", "start_timeout: 3s"))
        ship.rejected(health=500)
    finally:
        ship.stack(STACK)
    hold(ship)
    before, candidates = ship.pids("active"), ship.pids("idle")
    ship.where.run("rollback")
    until(lambda: not any(processes.started(p) for p in candidates))
    ship.whole()
    assert ship.pids("active") == before
    assert ship.history()[1]["outcome"] == "aborted"


def test_hold_and_a_newer_deployment(ship: Ship, watched: Watchers) -> None:
    began = now()
    hold(ship)
    held = ship.history()[0]["commit"]
    version = ship.deploy()
    ship.whole()
    [old] = [e for e in ship.history() if e["commit"] == held]
    assert old["outcome"] == "superseded"
    until(lambda: version in watched.answered(began))
    assert "v" + str(ship.number - 1) not in watched.answered(began)


def test_nothing_to_promote_or_abort(ship: Ship, watched: Watchers) -> None:
    for verb in ("promote", "abort"):
        said = ship.where.run(verb, status=1).stderr
        assert f"There is no deployment in progress to {verb}." in said
    ship.whole()


def test_warm_rollback_starts_no_process(ship: Ship, watched: Watchers) -> None:
    before, old = ship.version, ship.pids("active")
    ship.deploy()
    new = ship.pids("active")
    answer = ship.where.json("rollback")
    assert answer["outcome"] == "succeeded"
    ship.version = before
    ship.whole()
    assert ship.pids("active") == old
    assert ship.pids("idle") == new
    assert ship.service()["active"]["restarts"] == 0


def test_rollback_of_one_service(ship: Ship, watched: Watchers) -> None:
    before = ship.version
    ship.deploy()
    workers = ship.pids("active", "beat")
    ship.where.run("rollback", "api")
    ship.version = before
    ship.whole()
    assert ship.pids("active", "beat") == workers
    assert ship.service("beat")["active"]["release"] != ship.service("api")["active"]["release"]


def test_rollback_to_a_release(ship: Ship, watched: Watchers) -> None:
    target, release = ship.version, ship.service()["active"]["release"]
    ship.deploy()
    ship.deploy()
    ship.where.run("rollback", "api", "--to", release)
    ship.version = target
    ship.whole()
    assert ship.service()["active"]["release"] == release
    words = {"COMP_WORDS": "lapwing rollback --to ", "COMP_CWORD": "3"}
    environ = {**ship.where.environ, **words, "_LAPWING_COMPLETE": "bash_complete"}
    completed = subprocess.run(
        [LAPWING], cwd=ship.where.folder, env=environ, capture_output=True, text=True, check=True
    )
    assert f"plain,{release}" in completed.stdout.splitlines()
    said = ship.where.run("rollback", "--to", "no-such-release", status=2).stderr
    assert "No successful deployment of faults/local had release no-such-release." in said
    said = ship.where.run("rollback", "nobody", status=2).stderr
    assert "There is no service `nobody` in faults/local." in said
    ship.whole()


def test_cold_rollback(ship: Ship, watched: Watchers) -> None:
    before = ship.version
    ship.stack(STACK.replace("keep_old: 10m", "keep_old: 0s"))
    ship.deploy()  # The rule of the new release counts once it is the old one.
    third = ship.deploy()
    until(lambda: ship.service()["idle"] is None, "the end of the warm slot")
    assert ship.get().text == third
    ship.where.run("rollback")
    ship.version = f"v{ship.number - 1}"
    ship.whole()
    ship.stack(STACK)
    assert ship.version != before


def test_down_during_a_deployment(ship: Ship, clients: Watchers) -> None:
    version, reached = ship.next(start=8), ship.listen()
    deploying = ship.begin("deploy", "--output", "json")
    until(lambda: reached("starting"), "the start of the deployment")
    assert "Everything is stopped; data stays." in ship.where.run("down").stderr
    said, _ = deploying.communicate(timeout=60)
    assert deploying.returncode == 1
    assert '"superseded"' in said
    until(lambda: ship.memory().generations == [])
    status = ship.status()
    assert (status["running"], status["rollout"], status["services"]) == (False, None, [])
    assert ship.where.run("down").stderr == "faults/local is already stopped.\n"
    again = ship.where.json("down")
    assert (again["outcome"], again["changes"]) == ("unchanged", [])
    ship.where.run("up")
    ship.version = version
    ship.whole()
