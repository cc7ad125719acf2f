"""The clock jumps, back and forth, by a year: deadlines do not hang on it, nor does the order of
deployments.

The real agent and the real commands run with a clock of ours: `time.time` answers what the system
says, plus what is written in a file.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.agent import processes
from lapwing.observed import agent
from tests.clock import make
from tests.deployed import until
from tests.installation import installation
from tests.integration.faults.ship import Ship, Watchers

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("runtime-clock")]
YEAR = 365 * 86400


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the seconds by which the clock is wrong."""
    return make(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def ship(clock: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ship]:
    """A ship whose commands and whose agent have that clock."""
    root = tmp_path_factory.mktemp("ship")
    with installation(root, PYTHONPATH=str(clock.parent)) as where:
        made = Ship(where)
        made.up()
        where.run("agent", "stop")
        process = subprocess.Popen(
            [sys.executable, "-m", "lapwing.agent.daemon"],
            env=where.environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            until(lambda: agent.is_running(where.home / "agent"), "the agent")
            yield made
            where.run("down")
        finally:
            process.terminate()
            process.wait(60)


def test_faked_clock_is_in_effect(ship: Ship, clock: Path) -> None:
    """Else the tests below would show nothing."""
    clock.write_text(str(YEAR))
    ship.deploy()
    clock.write_text("0")
    newest = ship.history()[0]["time"]
    assert int(newest[:4]) > time.gmtime().tm_year
    assert ship.status()["updated"] > time.time() + YEAR / 2, "the agent's is, too"


@pytest.mark.parametrize(
    "jump", [pytest.param(YEAR, id="forth", marks=pytest.mark.slow), pytest.param(-YEAR, id="back")]
)
def test_clock_jump_during_a_paused_deployment(
    ship: Ship, watched: Watchers, clock: Path, jump: int
) -> None:
    clock.write_text("0")
    before = ship.deploy()
    pids = ship.pids("active")
    version = ship.next()
    ship.where.run("deploy", "--hold")
    clock.write_text(str(jump))
    assert ship.get(host="preview.faults.localhost").text == version
    ship.where.run("promote")
    ship.version = version
    ship.whole()
    time.sleep(2.5)  # The agent looks at what is warm once a second.
    warm = ship.service()["idle"]
    assert warm["pids"] == pids
    assert 0 < warm["warm_for"] <= 600
    ship.where.run("rollback")
    assert ship.pids("active") == pids
    ship.version = before
    ship.whole()
    kinds = [e["kind"] for e in ship.history()[:4]]
    assert kinds == ["rollback", "promote", "deploy", "deploy"], (
        "by what followed what, not by time"
    )


@pytest.mark.slow
def test_analysis_and_draining_ignore_clock_jumps(
    ship: Ship, watched: Watchers, clock: Path
) -> None:
    """The clock jumps back and forth while a rollout is watched: the window is what it is."""
    text = (ship.where.folder / "lapwing.yaml").read_text()
    watchful = text.replace(
        "analysis: false, keep_old: 10m", "analysis: {window: 3s}, keep_old: 0s"
    )
    (ship.where.folder / "lapwing.yaml").write_text(watchful)
    ship.deploy()
    old = ship.pids("active")
    version = ship.next()
    deploying = ship.begin("deploy")
    until(lambda: (ship.status()["rollout"] or {}).get("state") == "analysing")
    for jump in (YEAR, -YEAR, 5, 0):
        clock.write_text(str(jump))
        time.sleep(0.3)
    _, said = deploying.communicate(timeout=60)
    assert deploying.returncode == 0, said
    ship.version = version
    ship.whole()
    until(lambda: not any(processes.started(pid) for pid in old))
