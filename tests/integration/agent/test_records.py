"""Processes whose record is gone: taken over or ended, never left, never in the way."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lapwing.agent import process_tree, processes
from lapwing.agent.proxy import instances
from lapwing.observed import agent as observed
from lapwing.system import locks
from tests.deployed import until
from tests.installation import envoys
from tests.integration.agent.conftest import kill_agent
from tests.integration.faults.ship import Ship

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("runtime-records")]


def runs_and_nothing_besides(ship: Ship) -> None:
    """Every process is in a record, and every record has its process."""
    memory = ship.memory()
    known = [r.pid for g in memory.generations for r in g.replicas]
    supervisor = os.getsid(envoys(ship.where.home)[0])
    known += [supervisor, *envoys(ship.where.home)]
    until(lambda: sorted(i.pid for i, _ in process_tree.owned(ship.where.home)) == sorted(known))


def test_running_envoy_is_adopted(ship: Ship) -> None:
    before = envoys(ship.where.home)
    assert len(before) == instances.PROCESSES
    kill_agent(ship)
    ship.where.run("agent", "start")
    ship.whole()
    assert envoys(ship.where.home) == before
    runs_and_nothing_besides(ship)


def test_envoy_without_its_files_is_replaced(ship: Ship) -> None:
    before = set(envoys(ship.where.home))
    kill_agent(ship)
    shutil.rmtree(ship.where.home / "envoy")
    ship.where.run("agent", "start")
    until(lambda: ship.status()["problem"] is None)
    until(lambda: not before & set(envoys(ship.where.home)))
    ship.whole()
    runs_and_nothing_besides(ship)


def test_replica_without_a_record_is_killed(ship: Ship) -> None:
    """An agent was killed between the start of a replica and its record."""
    service = ship.memory().generations[0]
    copy = service.replicas[0].pid
    assert copy is not None
    kill_agent(ship)
    given = Path(f"/proc/{copy}/environ").read_bytes().split(b"\0")
    environ = dict(pair.decode().split("=", 1) for pair in given if b"=" in pair)
    # With the mark of the running replica, it would be a helper of it.
    environ[processes.MARK] = environ[processes.MARK].rpartition("/")[0] + "/9"
    orphan = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], env=environ, start_new_session=True
    )
    ship.where.run("agent", "start")
    assert orphan.wait(timeout=30) == -9
    ship.whole()
    runs_and_nothing_besides(ship)


@pytest.mark.parametrize("content", [None, b"", b'{"pid": 1, "version": "0", "port": 1}'])
def test_missing_or_wrong_record_of_the_agent_heals(ship: Ship, content: bytes | None) -> None:
    path = ship.where.home / "agent" / "agent.json"
    before = observed.holder(ship.where.home / "agent")
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    ship.where.run("agent", "start")
    record = observed.read(ship.where.home / "agent")
    assert record is not None
    assert record.pid == before == observed.holder(ship.where.home / "agent")


def test_first_commands_at_once_find_one_agent(ship: Ship) -> None:
    kill_agent(ship)
    commands = [ship.begin("agent", "start") for _ in range(8)]
    assert [c.wait(timeout=60) for c in commands] == [0] * 8
    record = observed.read(ship.where.home / "agent")
    assert record is not None
    assert record.pid == observed.holder(ship.where.home / "agent")
    for command in commands:
        command.communicate()
    ship.whole()


def test_id_of_an_agent_that_has_ended_gets_no_signal(ship: Ship) -> None:
    """A command holds the lock for a moment, and the lock's file has the id of the last agent."""
    kill_agent(ship)
    other = subprocess.Popen(["sleep", "600"])
    folder = ship.where.home / "agent"
    (folder / "agent.json").write_text(json.dumps({"pid": other.pid, "version": "", "port": 1}))
    try:
        with locks.hold(folder / "lock"):
            (folder / "lock").write_text("")
            assert observed.holder(folder) is None
        assert not observed.is_running(folder)
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
    ship.where.run("agent", "start")


def test_envoy_whose_folder_was_removed_is_replaced(ship: Ship) -> None:
    """It watches files in the removed folder, and would get no routes any more."""
    before = set(envoys(ship.where.home))
    shutil.rmtree((ship.where.home / "envoy").rename(ship.where.home / "removed"))
    until(lambda: not before & set(envoys(ship.where.home)), "another Envoy")
    ship.recovers()
    ship.deploy()
    ship.whole()
    runs_and_nothing_besides(ship)


def test_deployment_ends_although_the_folder_of_envoy_is_removed(ship: Ship) -> None:
    ship.next(start=2)
    deploying = ship.begin("deploy")
    until(lambda: ship.status()["rollout"], "the deployment")
    removed = (ship.where.home / "envoy").rename(ship.where.home / "removed")
    _, said = deploying.communicate(timeout=120)
    shutil.rmtree(removed)
    assert deploying.returncode in (0, 1), said
    ship.version = f"v{ship.number}" if deploying.returncode == 0 else ship.version
    ship.recovers()
    runs_and_nothing_besides(ship)
