"""Two who deploy at once, and one who presses Ctrl-C: whatever they see is true."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from lapwing.load.record import now
from tests.deployed import PATIENCE, until
from tests.integration.faults import ship as usual
from tests.integration.faults.ship import Ship, Watchers
from tests.needs import require

pytestmark = pytest.mark.xdist_group("faults-interruptions")
SITE = """
  site:
    build: ./site
    static: dist
    route: /site
    rollout: {analysis: false}
"""


def interrupt(command: subprocess.Popen[str]) -> str:
    """Press Ctrl-C; returns what the command says then. It has to end as interrupted commands
    do."""
    os.killpg(command.pid, signal.SIGINT)
    _, said = command.communicate(timeout=PATIENCE)
    assert command.returncode == 130, said
    assert "Traceback" not in said
    return said


def test_two_deployments_at_once(ship: Ship, watched: Watchers) -> None:
    version = ship.next(start=0.5)
    commands = [ship.begin("deploy", "--output", "json") for _ in range(2)]
    ends = [(c.communicate(timeout=PATIENCE * 2), c.returncode) for c in commands]
    answers = [json.loads(out) for (out, _), _ in ends]
    assert [status for _, status in ends] == [0, 0], ends
    assert len({a["commit"] for a in answers}) == 1, answers  # One follows that of the other.
    outcomes = sorted(a["outcome"] for a in answers)
    assert outcomes in (["succeeded", "succeeded"], ["succeeded", "unchanged"])
    ship.version = version
    ship.whole()


def test_two_different_deployments_at_once(ship: Ship, watched: Watchers) -> None:
    first, reached = ship.next(start=0.5), ship.listen()
    one = ship.begin("deploy", "--output", "json")
    until(lambda: reached("starting"), "the start of the first")
    second = ship.next()
    two = ship.begin("deploy", "--output", "json")
    ends = [(c.communicate(timeout=PATIENCE * 2)[0], c.returncode) for c in (one, two)]
    outcomes = [(json.loads(out)["outcome"], status) for out, status in ends]
    assert outcomes[1] == ("succeeded", 0)
    assert outcomes[0] in (("superseded", 1), ("succeeded", 0))
    assert first != second
    ship.version = second
    ship.whole()
    said = {e["commit"]: e["outcome"] for e in ship.history()}
    assert [said[json.loads(out)["commit"]] for out, _ in ends] == [o for o, _ in outcomes]


def test_interrupted_before_the_commit(ship: Ship, watched: Watchers) -> None:
    """A build that hangs is what `deploy` is at when it is interrupted."""
    require("node")
    mark = ship.marks / "building"
    script = "touch $MARK; sleep 1000"
    package = {"name": "site", "version": "1.0.0", "scripts": {"build": script}}
    lock = {"name": "site", "version": "1.0.0", "lockfileVersion": 3, "requires": True}
    ship.where.write(
        {
            "site/package.json": json.dumps(package),
            "site/package-lock.json": json.dumps(
                {**lock, "packages": {"": {"name": "site", "version": "1.0.0"}}}
            ),
        }
    )
    build = f'build: {{path: ./site, env: {{MARK: "{mark}"}}}}'
    ship.stack(usual.STACK + SITE.replace("build: ./site", build))
    before, pids = ship.repository.head(), ship.pids("active")
    command = ship.begin("deploy")
    until(mark.exists, "the build")
    assert "Interrupted." in interrupt(command)
    assert ship.repository.head() == before
    ship.whole()
    assert ship.pids("active") == pids
    hanging = f'build: {{path: ./site, timeout: 2s, env: {{MARK: "{mark}"}}}}'
    ship.stack(usual.STACK + SITE.replace("build: ./site", hanging))
    said = ship.where.run("deploy", status=1).stderr
    assert "timed out and was stopped." in said
    assert ship.repository.head() == before
    ship.stack(usual.STACK)
    ship.whole()


@pytest.mark.parametrize("state", ["starting", "testing", "switching"])
def test_interrupted_after_the_commit(ship: Ship, watched: Watchers, state: str) -> None:
    smoke = "rollout: {smoke: [{run: python app.py check}], "
    ship.stack(usual.STACK.replace("rollout: {", smoke))
    began, reached = now(), ship.listen()
    version = ship.next(start=0.5)
    command = ship.begin("deploy")
    until(lambda: reached(state), state)
    os.killpg(command.pid, signal.SIGINT)
    _, said = command.communicate(timeout=PATIENCE)
    assert "Traceback" not in said
    if command.returncode == 0:
        assert state == "switching"  # It had ended before the signal came.
    else:
        assert command.returncode == 130
        assert "Detached. Deployment " in said
        assert "continues in the background" in said
    until(lambda: ship.status()["rollout"] is None, "the end of the deployment")
    ship.version = version
    ship.whole()
    assert ship.history()[0]["outcome"] == "succeeded"
    until(lambda: version in watched.answered(began))
