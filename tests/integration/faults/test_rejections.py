"""Releases that their tests, their job, or live traffic speak against."""

from __future__ import annotations

import pytest

from lapwing.load.record import now
from tests.deployed import until
from tests.integration.faults import ship as usual
from tests.integration.faults.ship import Ship, Watchers

pytestmark = pytest.mark.xdist_group("faults-rejections")
ROLLOUT = """
    rollout:
      keep_old: 10m
      stop_grace: 1s
      smoke: [{get: /smoke, expect: 200}, {run: python app.py check, timeout: 20s}]
      analysis: {window: 60s, max_error_rate: 10%, max_p95: 250ms, min_requests: 20}
"""
QUIET = usual.STACK + (
    """
  migrate:
    kind: job
    build: ./api
    command: python app.py job
"""
)
STACK = QUIET.replace("    rollout: {analysis: false, keep_old: 10m, stop_grace: 1s}\n", ROLLOUT)
UNTESTED = QUIET.replace("analysis: false", "analysis: {window: 500ms, min_requests: 1000000}")


def outcome(ship: Ship) -> tuple[str, str | None]:
    """What became of the newest deployment, and why, as the history says. A failure is followed
    by the commit that puts the desired state back."""
    newest, second, *_ = ship.history()
    assert (newest["kind"], newest["outcome"]) == ("revert", "succeeded")
    assert newest["restores"] not in (None, second["commit"])
    return second["outcome"], second["reason"]


def test_failing_smoke_request_rejects_the_release(ship: Ship, watched: Watchers) -> None:
    began = now()
    said = ship.rejected(smoke=404)
    reason = "api: Smoke test GET /smoke responded with status 404, expected 200."
    assert f"was rejected: {reason}" in said
    assert outcome(ship) == ("failed", reason)
    assert watched.answered(began) == {ship.version}


def test_failing_smoke_command_rejects_the_release(ship: Ship, watched: Watchers) -> None:
    began = now()
    said = ship.rejected(check=4)
    reason = "api: Smoke test `python app.py check` exited with status 4."
    assert f"was rejected: {reason}" in said
    assert "check says 4" in said
    assert outcome(ship) == ("failed", reason)
    assert watched.answered(began) == {ship.version}


def test_failing_health_check_is_shown_while_it_is_waited_for(
    ship: Ship, watched: Watchers
) -> None:
    try:
        ship.stack(STACK.replace("start_timeout: 30s", "start_timeout: 5s"))
        said = ship.rejected(health=500)
    finally:
        ship.stack(STACK)
    answer = "GET /healthz responded with status 500"
    assert said.count(f"api: {answer}; waiting up to 5 s\n") == 1
    assert f"was rejected: api did not become healthy within 5 s: {answer}." in said


def test_failing_job_rejects_the_release(ship: Ship, watched: Watchers) -> None:
    began = now()
    ship.next(job=5)
    before = ship.pids("active")
    answer = ship.where.json("deploy", status=1)
    reason = "Job migrate exited with status 5."
    assert (answer["outcome"], answer["reason"]) == ("failed", reason)
    assert "job says 5" in answer["detail"]
    assert "starting" not in answer["rollout"]["times"]
    ship.whole()
    assert ship.pids("active") == before
    assert outcome(ship) == ("failed", reason)
    assert watched.answered(began) == {ship.version}


def test_errors_under_live_traffic_roll_back(ship: Ship, watched: Watchers) -> None:
    bad = f"v{ship.number + 1}"
    watched.forgive(lambda e: e.version == bad)
    began = now()
    said = ship.rejected(status=500)
    assert "was rolled back: api: " in said
    assert "requests failed" in said
    assert "limit 10.0%" in said
    assert "Traffic is on the previous release again." in said
    word, reason = outcome(ship)
    assert word == "rolled-back"
    assert reason is not None
    assert "requests failed" in reason
    assert bad in watched.answered(began)


def test_latency_under_live_traffic_rolls_back(ship: Ship, watched: Watchers) -> None:
    bad = f"v{ship.number + 1}"
    began = now()
    said = ship.rejected(delay=0.6)
    assert "was rolled back: api: p95 latency of " in said
    assert "limit 250 ms" in said
    assert outcome(ship)[0] == "rolled-back"
    assert bad in watched.answered(began)


def test_release_without_health_path_that_answers_nothing_is_rejected(
    ship: Ship, watched: Watchers
) -> None:
    began = now()
    ship.stack(STACK.replace("path: /healthz, start_timeout: 30s", "start_timeout: 3s"))
    said = ship.rejected(mute=True)
    ship.stack(STACK)
    assert "was rejected: api did not become healthy within 3 s: GET / failed" in said
    assert watched.answered(began) == {ship.version}


def test_release_that_crashes_while_paused_is_rejected(ship: Ship, watched: Watchers) -> None:
    began = now()
    ship.stack(STACK.replace("rollout:", "rollout:\n      hold: true"))
    ship.next(dies=4)
    ship.where.run("deploy")
    until(lambda: ship.history()[0]["kind"] == "revert", "the end of the paused deployment")
    ship.stack(STACK)
    ship.recovers()
    reason = "api became unhealthy before the switch: a replica exited with status 7."
    assert outcome(ship) == ("failed", reason)
    assert watched.answered(began) == {ship.version}


def test_release_that_crashes_in_the_analysis_window_is_rolled_back(
    ship: Ship, watched: Watchers
) -> None:
    watched.forgive(lambda e: e.version in (f"v{ship.number}", None))  # The crash itself.
    said = ship.rejected(dies=3)
    reason = "api became unhealthy after the switch: a replica exited with status 7."
    assert f"was rolled back: {reason}" in said
    assert outcome(ship) == ("rolled-back", reason)


def test_crash_loop_after_the_analysis_is_rolled_back(ship: Ship, watched: Watchers) -> None:
    """The old slot is still warm: a commit of the agent restores the previous deployment."""
    before, good = ship.version, ship.pids("active")
    watched.forgive(lambda e: e.version in (f"v{ship.number}", None))
    ship.stack(STACK.replace("window: 60s", "window: 500ms").replace("250ms", "20s"))
    ship.deploy(dies=2.5)
    bad = ship.history()[0]["commit"]
    until(lambda: ship.get().text == before, "the rollback")
    ship.version = before
    ship.stack(STACK)
    ship.recovers()
    assert ship.pids("active") == good
    rolled = {e["commit"]: e for e in ship.history()}
    assert rolled[bad]["outcome"] == "rolled-back"
    assert rolled[bad]["reason"] == "api crashed repeatedly after the deployment."


def test_deployment_without_traffic_is_judged_by_synthetic_requests(ship: Ship) -> None:
    few = STACK.replace("window: 60s", "window: 500ms")
    ship.stack(few.replace("min_requests: 20", "min_requests: 1000000"))
    version = ship.next()
    answer = ship.where.json("deploy")
    ship.version = version
    ship.stack(STACK)
    assert "too few to analyse; 6 synthetic requests succeeded" in answer["reason"]


def test_release_that_fails_at_its_route_is_rolled_back_without_traffic(ship: Ship) -> None:
    """Its health check passes, it has no smoke test, and nobody sends a request."""
    ship.stack(UNTESTED)
    ship.deploy()
    said = ship.rejected(status=500)
    reason = "api had too few requests to analyse, and GET / responded with status 500"
    assert f"was rolled back: {reason}" in said
    assert "add a smoke test" in said
    assert outcome(ship)[0] == "rolled-back"


@pytest.mark.parametrize("status", [404, 401])
def test_release_without_a_page_at_its_route_is_deployed(ship: Ship, status: int) -> None:
    ship.stack(UNTESTED)
    ship.deploy(status=status)


def test_release_that_fails_at_its_route_like_the_one_before_is_deployed(ship: Ship) -> None:
    """So the fix of something else is not locked out, nor is an API that has no other answer."""
    ship.stack(UNTESTED.replace("{window", "{max_error_rate: null, window"))
    ship.deploy(status=503)
    ship.stack(UNTESTED)
    version = ship.next(status=500)
    answer = ship.where.json("deploy")
    ship.version = version
    assert "GET / responded with status 500, and the release before it failed" in answer["reason"]
    ship.stack(STACK)
    ship.deploy()


def test_good_release_is_deployed_after_rejections(ship: Ship, watched: Watchers) -> None:
    began = now()
    ship.stack(STACK.replace("window: 60s", "window: 1s").replace("250ms", "20s"))
    version = ship.deploy()
    ship.whole()
    until(lambda: version in watched.answered(began))
    assert ship.history()[0]["outcome"] == "succeeded"
