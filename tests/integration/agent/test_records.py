"""Processes whose record is gone: taken over or ended, never left, never in the way."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lapwing.agent import process_tree, processes
from lapwing.observed import agent as observed
from tests.deployed import until
from tests.integration.agent.conftest import kill_agent
from tests.integration.faults.ship import Ship

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("runtime-records")]


def envoys(ship: Ship) -> list[int]:
    """The processes that are Envoy."""
    return [i.pid for i, what in process_tree.owned(ship.where.home) if what == "envoy"]


def runs_and_nothing_besides(ship: Ship) -> None:
    """Every process is in a record, and every record has its process."""
    memory = ship.memory()
    known = [r.pid for g in memory.generations for r in g.replicas]
    record = json.loads((ship.where.home / "envoy" / "process.json").read_bytes())
    known.append(record["pid"])
    until(lambda: sorted(i.pid for i, _ in process_tree.owned(ship.where.home)) == sorted(known))


def test_envoy_without_a_record_is_adopted(ship: Ship) -> None:
    """An agent was killed between the start of Envoy and its record: the port is taken by a process
    of ours, which is no reason not to start."""
    [before] = envoys(ship)
    kill_agent(ship)
    (ship.where.home / "envoy" / "process.json").unlink()
    ship.where.run("agent", "start")
    ship.whole()
    assert len(envoys(ship)) == 1
    assert envoys(ship) == [before], "one that serves is taken over"
    runs_and_nothing_besides(ship)


def test_envoy_without_its_files_is_replaced(ship: Ship) -> None:
    kill_agent(ship)
    shutil.rmtree(ship.where.home / "envoy")
    ship.where.run("agent", "start")
    until(lambda: ship.status()["problem"] is None)
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
