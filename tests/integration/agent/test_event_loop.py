"""Nothing blocks the agent's event loop: health, drains and routes depend on its reactions.

The real agent runs with `loop_guard.py`, which records what blocks, through a deployment, a kill,
a process that ignores SIGTERM, and housekeeping.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lapwing.agent import processes
from lapwing.observed import agent
from tests.deployed import until
from tests.installation import installation
from tests.integration.faults import ship as usual
from tests.integration.faults.ship import Ship

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("runtime-event-loop")]
STACK = (
    usual.STACK.replace("keep_old: 10m", "keep_old: 0s, smoke: [{run: 'true'}, {get: /version}]")
    + """
  migrate: {kind: job, build: ./api, command: python -c pass}
"""
)


@pytest.fixture
def findings(tmp_path: Path) -> Path:
    """The file of the findings; the guard is beside it."""
    shutil.copy(Path(__file__).with_name("loop_guard.py"), tmp_path / "sitecustomize.py")
    (tmp_path / "findings").touch()
    return tmp_path / "findings"


@pytest.fixture
def ship(findings: Path, tmp_path: Path) -> Iterator[Ship]:
    """A stack whose agent is guarded."""
    with installation(tmp_path / "ship") as where:
        made = Ship(where, STACK)
        made.up()
        where.run("agent", "stop")
        guarded = {"PYTHONPATH": str(findings.parent), "LOOP_GUARD": str(findings)}
        with (where.settings.agent / "agent.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "lapwing.agent.daemon"],
                env=where.environ | guarded,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            until(lambda: agent.is_running(where.home / "agent"), "the agent")
            yield made
        finally:
            process.terminate()
            process.wait(60)


def read(findings: Path) -> list[dict[str, Any]]:
    """What the guard recorded."""
    return [json.loads(line) for line in findings.read_text().splitlines()]


def test_agent_does_not_block_its_event_loop(ship: Ship, findings: Path) -> None:
    ship.deploy(stubborn=True)
    stubborn = ship.pids("active")
    ship.kill(stubborn[0])
    until(lambda: ship.service()["active"]["restarts"], "the restart")
    ship.deploy()
    until(lambda: not any(map(processes.started, stubborn)), "the end of the old release")
    ship.where.run("down")
    until(lambda: not agent.is_running(ship.where.home / "agent"), "the exit of the agent")
    *found, end = read(findings)
    assert found == [], json.dumps(found, indent=1)
    assert {"os.fsync", "subprocess.run", "os.scandir"} <= set(end["elsewhere"])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("time.sleep(0)", "call"),
        ("subprocess.run(['true'])", "call"),
        ("os.fsync(os.open('/tmp', os.O_RDONLY))", "call"),
        ("threading.Event().wait(0.2)", "slow"),
        ("[None for _ in iter(lambda: time.thread_time() > 0.4, True)]", "slow"),
    ],
)
def test_guard_finds_blocking_calls(findings: Path, code: str, kind: str) -> None:
    program = f"import asyncio, os, subprocess, threading, time\nasync def main(): {code}\n"
    environ = {"PYTHONPATH": str(findings.parent), "LOOP_GUARD": str(findings)}
    command = [sys.executable, "-c", program + "asyncio.run(main())"]
    subprocess.run(command, env=environ, check=True)
    assert kind in {f["kind"] for f in read(findings)}
