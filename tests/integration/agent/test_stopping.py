"""A service that needs time to stop has it, whatever happens to the agent, and delays no other
stack."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from lapwing.agent import process_tree, processes
from tests.deployed import Deployed, until
from tests.installation import Installation, installation
from tests.integration.agent.conftest import kill_agent
from tests.integration.faults.ship import STACK, Ship

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("runtime-stopping")]
SLOW = """
stack: slow
services:
  queue: {kind: worker, build: ./queue, command: python queue_worker.py, stop_grace: 60s}
"""
WORKER = """
import os, pathlib, signal, time
marks = pathlib.Path("@MARKS@")
def end(*_):
    (marks / "asked").touch()
    until = time.monotonic() + float((marks / "seconds").read_text())
    while time.monotonic() < until and not (marks / "end").exists():
        time.sleep(0.05)
    (marks / "finished").touch()
    os._exit(0)
signal.signal(signal.SIGTERM, end)
while True:
    time.sleep(600)
"""


class Queue(Deployed):
    """A worker that takes its time to end."""

    SERVICE = "queue"

    def __init__(self, where: Installation) -> None:
        super().__init__(where, "slow")
        self.marks = where.folder / "marks"
        self.marks.mkdir()
        text = SLOW.replace("stop_grace: 60s", "rollout: {stop_grace: 60s}")
        worker = WORKER.replace("@MARKS@", str(self.marks))
        where.write(
            {"lapwing.yaml": text, "queue/requirements.txt": "", "queue/queue_worker.py": worker}
        )

    def up(self, seconds: float) -> int:
        """Start it; returns its process."""
        for name in ("asked", "finished", "end"):
            (self.marks / name).unlink(missing_ok=True)
        (self.marks / "seconds").write_text(str(seconds))
        self.where.run("up")
        [pid] = self.service()["active"]["pids"]
        return int(pid)

    def end(self) -> None:
        """Let it end now."""
        (self.marks / "end").touch()

    @property
    def asked(self) -> bool:
        return (self.marks / "asked").exists()

    @property
    def finished(self) -> bool:
        return (self.marks / "finished").exists()


@pytest.fixture(scope="module")
def ship(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ship]:
    with installation(tmp_path_factory.mktemp("stopping")) as where:
        made = Ship(where, STACK.replace("keep_old: 10m", "keep_old: 1s"))
        made.up()
        yield made


@pytest.fixture(scope="module")
def queue(ship: Ship) -> Queue:
    return Queue(ship.where.beside("slow"))


def test_down_waits_for_the_last_process(queue: Queue) -> None:
    pid = queue.up(55)
    down = down_in_background(queue)
    assert down.stderr is not None
    assert any("stopping queue, up to 60 s" in line for line in down.stderr)
    queue.end()
    _, said = down.communicate(timeout=60)
    assert (down.returncode, "Everything is stopped" in said) == (0, True), said
    assert queue.finished
    assert processes.started(pid) is None


def down_in_background(queue: Queue) -> subprocess.Popen[str]:
    """Begin `down`; returns when the worker has got SIGTERM."""
    down = Ship.begin(queue, "down")  # type: ignore[arg-type]
    until(lambda: queue.asked, "SIGTERM")
    return down


def test_second_down_waits_like_the_first(queue: Queue) -> None:
    pid = queue.up(55)
    first = down_in_background(queue)
    until(lambda: queue.status()["stopping"])
    overview = queue.where.call("status", "--all").stdout
    assert re.search(r"^slow +local +stopping ", overview, re.MULTILINE), overview
    second = Ship.begin(queue, "down")  # type: ignore[arg-type]
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(3)  # It has nothing else to do than to wait.
    queue.end()
    for down in (first, second):
        _, said = down.communicate(timeout=120)
        assert (down.returncode, "Everything is stopped" in said) == (0, True), said
    assert processes.started(pid) is None
    again = queue.where.call("down")
    assert (again.returncode, "is already stopped" in again.stderr) == (0, True)


def test_interrupted_down_says_that_it_continues(queue: Queue) -> None:
    pid = queue.up(55)
    down = down_in_background(queue)
    until(lambda: queue.status()["stopping"])
    said = queue.where.call("status").stdout
    assert "slow/local  stopping\n\nStopping: queue (up to " in said
    down.send_signal(signal.SIGINT)
    _, said = down.communicate(timeout=60)
    assert "continues in the background" in said
    assert processes.started(pid) is not None
    queue.end()
    until(lambda: processes.started(pid) is None)
    assert queue.finished


def test_agent_stop_waits_for_what_is_being_stopped(queue: Queue) -> None:
    pid = queue.up(3)
    down = down_in_background(queue)
    down.kill()
    down.communicate()
    said = queue.where.run("agent", "stop").stderr
    assert "stopping queue, up to" in said
    assert queue.finished
    assert processes.started(pid) is None
    queue.where.run("agent", "start")


def test_restarted_agent_continues_to_stop(ship: Ship, queue: Queue) -> None:
    """It is killed, and the next one leaves the worker the rest of its time."""
    pid = queue.up(4)
    down = down_in_background(queue)
    kill_agent(ship)
    _, said = down.communicate(timeout=120)
    assert down.returncode == 0, said
    assert queue.finished
    assert processes.started(pid) is None
    left = [what for _, what in process_tree.owned(queue.where.home) if what.startswith("slow/")]
    assert left == []


def test_slow_stop_delays_no_other_stack(ship: Ship, queue: Queue) -> None:
    queue.up(55)
    down = down_in_background(queue)
    old = ship.pids("active")
    ship.deploy()
    until(lambda: not any(map(processes.started, old)), "the end of the old slot")
    assert not queue.finished
    assert down.poll() is None
    queue.end()
    _, said = down.communicate(timeout=120)
    assert down.returncode == 0, said
    assert queue.finished


def test_stack_that_is_being_stopped_can_start_again(queue: Queue) -> None:
    pid = queue.up(55)
    down = down_in_background(queue)
    down.kill()
    down.communicate()
    queue.where.run("up")
    assert queue.service()["active"]["ready"] == 1
    assert not queue.finished
    queue.end()
    until(lambda: processes.started(pid) is None)
    assert queue.finished
    queue.where.run("down")
