"""Jobs on a schedule: due, missed, skipped, adopted by a new agent, stopped.

A time that has come is set in the state of the agent while none is running, so no test waits for
a clock, except for the job of every minute.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from lapwing.agent import processes, state
from tests.deployed import until
from tests.integration.agent.conftest import kill_agent
from tests.integration.faults import ship as usual
from tests.integration.faults.ship import Ship

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("runtime-schedules")]
JOB = """
import os, pathlib, sys, time
marks = pathlib.Path(os.environ["MARKS"])
name, release = os.environ["LAPWING_SERVICE"], os.environ["LAPWING_RELEASE"]
with (marks / f"{name}.runs").open("a") as file:
    print(os.getpid(), release, file=file)
print(f"{name} runs")
while not (marks / f"{name}.end").exists():
    time.sleep(0.05)
sys.exit(int((marks / f"{name}.end").read_text()))
"""
WITH_JOBS = (
    usual.STACK
    + """
  minutely:
    build: ./job
    command: python job.py
    schedule: "* * * * *"
    env: {MARKS: "@MARKS@"}
  hourly:
    build: ./job
    command: python job.py; exit $?
    schedule: "EARLIER * * * *"
    env: {MARKS: "@MARKS@"}
    rollout: {stop_grace: 1s}
  brief:
    build: ./job
    command: python job.py
    schedule: {cron: "EARLIER * * * *", start_within: 1s}
    env: {MARKS: "@MARKS@"}
  hanging:
    build: ./job
    command: python job.py
    schedule: "EARLIER * * * *"
    timeout: 1s
    env: {MARKS: "@MARKS@"}
    rollout: {stop_grace: 1s}
"""
)


@pytest.fixture(scope="module", autouse=True)
def jobs(ship: Ship) -> None:
    ship.where.write({"job/job.py": JOB, "job/requirements.txt": "# Nothing.\n"})
    (ship.marks / "minutely.end").write_text("0")
    earlier = time.gmtime(time.time() - 600).tm_min  # Not due again during the tests.
    ship.stack(WITH_JOBS.replace("EARLIER", str(earlier)))
    ship.where.run("deploy")


def runs(ship: Ship, name: str) -> list[list[str]]:
    """The runs of a job: process and release of each."""
    file = ship.marks / f"{name}.runs"
    return [line.split() for line in file.read_text().splitlines()] if file.exists() else []


def schedule(ship: Ship, name: str) -> dict[str, Any]:
    found: dict[str, Any] = ship.service(name)["schedule"]
    return found


def make_due(ship: Ship, name: str) -> None:
    """Let the last time of a job come while no agent is running, then start one."""
    until(lambda: name in ship.memory().schedules, "the schedule")
    kill_agent(ship)
    memory = ship.memory()
    memory.schedules[name].next = time.time() - 1200
    state.save(ship.environment, memory)
    ship.where.run("agent", "start")


def last(ship: Ship, name: str, outcome: str) -> dict[str, Any]:
    """The last run of a job, when it has ended in this way."""

    def found() -> dict[str, Any] | None:
        run = schedule(ship, name)["last"]
        return run if run and run["outcome"] == outcome else None

    ended: dict[str, Any] = until(found, f"the end of {name}: {outcome}")
    return ended


def end(ship: Ship, name: str, status: int) -> None:
    mark: Path = ship.marks / f"{name}.end"
    mark.with_suffix(".new").write_text(str(status))
    mark.with_suffix(".new").replace(mark)


def test_scheduled_job_does_not_run_at_a_deployment(ship: Ship) -> None:
    assert runs(ship, "hourly") == []
    found = ship.service("hourly")
    assert found["phase"] == "scheduled"
    assert found["schedule"]["last"] is None
    assert until(lambda: schedule(ship, "hourly")["next"], "the next time") > time.time()


def test_missed_run_starts_once_and_is_adopted_by_a_new_agent(ship: Ship) -> None:
    make_due(ship, "hourly")
    [[pid, release]] = until(lambda: runs(ship, "hourly"), "the run that was missed")
    assert schedule(ship, "hourly")["running_since"] is not None
    wanted = ship.repository.read(ship.name, "local")
    assert wanted is not None
    assert release == wanted.services["hourly"].release

    make_due(ship, "hourly")
    skipped = last(ship, "hourly", "skipped")
    assert "still in progress" in skipped["reason"]
    assert skipped["began"] is None
    os.kill(int(pid), 0)

    end(ship, "hourly", 3)
    failed = last(ship, "hourly", "failed")
    assert failed["reason"] == "exited with status 3"
    assert failed["began"] < failed["ended"]
    assert len(runs(ship, "hourly")) == 1
    assert "hourly runs" in ship.where.run("logs", "hourly").stdout
    assert "exited with status 3" in ship.where.run("status").stdout


def test_run_that_ended_without_an_agent_is_recorded(ship: Ship) -> None:
    (ship.marks / "hourly.end").unlink(missing_ok=True)
    before = len(runs(ship, "hourly"))
    make_due(ship, "hourly")
    pid = int(until(lambda: runs(ship, "hourly")[before:], "a run")[0][0])
    until(lambda: ship.memory().runs["hourly"].pid, "its record")
    kill_agent(ship)
    end(ship, "hourly", 0)
    until(lambda: processes.started(pid) is None, "the end of the run")
    ship.where.run("agent", "start")
    assert last(ship, "hourly", "succeeded")["reason"] is None
    assert len(runs(ship, "hourly")) == before + 1
    logs = ship.where.home / "logs" / "run" / ship.name / "local" / "hourly"
    assert len([*logs.glob("job-*.log")]) == before + 1, "each run has a log"


def test_run_that_was_killed_without_an_agent_is_interrupted(ship: Ship) -> None:
    (ship.marks / "hourly.end").unlink(missing_ok=True)
    before = len(runs(ship, "hourly"))
    make_due(ship, "hourly")
    until(lambda: runs(ship, "hourly")[before:], "a run")
    leader = until(lambda: ship.memory().runs["hourly"].pid, "its record")
    kill_agent(ship)
    os.killpg(leader, 9)
    until(lambda: processes.started(leader) is None, "the end of the run")
    ship.where.run("agent", "start")
    last(ship, "hourly", "interrupted")
    assert len(runs(ship, "hourly")) == before + 1


def test_run_that_is_too_late_is_recorded_as_missed(ship: Ship) -> None:
    make_due(ship, "brief")
    assert last(ship, "brief", "missed")["began"] is None
    assert runs(ship, "brief") == []


def test_run_that_exceeds_its_timeout_is_stopped(ship: Ship) -> None:
    make_due(ship, "hanging")
    assert last(ship, "hanging", "failed")["reason"] == "it did not exit within 1 s"
    assert processes.started(int(runs(ship, "hanging")[0][0])) is None


def test_job_that_is_due_every_minute_runs(ship: Ship) -> None:
    until(lambda: runs(ship, "minutely"), "the run of a minute")
    assert last(ship, "minutely", "succeeded")["due"] % 60 == 0


def test_down_stops_a_run_in_progress_and_keeps_the_last_run(ship: Ship) -> None:
    (ship.marks / "hourly.end").unlink(missing_ok=True)
    before = len(runs(ship, "hourly"))
    make_due(ship, "hourly")
    pid = int(until(lambda: runs(ship, "hourly")[before:], "a run")[0][0])
    ship.where.run("down")
    assert processes.started(pid) is None
    until(lambda: not any(job.next for job in ship.memory().schedules.values()), "no next time")
    ship.where.run("up")
    assert until(lambda: schedule(ship, "hourly")["next"], "the next time") > time.time()
    assert last(ship, "hourly", "interrupted")["reason"] == "it was stopped"
    assert len(runs(ship, "hourly")) == before + 1
