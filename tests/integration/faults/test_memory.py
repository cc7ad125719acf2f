"""The kernel kills what needs too much memory: a replica, or the candidate of a deployment."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lapwing.load.record import now
from lapwing.observed import agent as observed
from tests.deployed import until
from tests.failed_builds import failed_build
from tests.integration.faults import ship as usual
from tests.integration.faults.ship import Ship, Watchers
from tests.needs import require

pytestmark = pytest.mark.xdist_group("faults-memory")


@contextlib.contextmanager
def limited(pid: int, size: int) -> Iterator[Path]:
    """Limit the memory of a process and its children to `size` bytes; yield the control group."""
    root = Path(require("memory-cgroup"))
    group = root / f"lapwing-test-{pid}"
    group.mkdir()
    limits = (group / "memory.limit_in_bytes", group / "memory.max")
    next(limit for limit in limits if limit.exists()).write_text(str(size))
    (group / "cgroup.procs").write_text(str(pid))
    try:
        yield group
    finally:
        for left in (group / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (root / "cgroup.procs").write_text(left)
        until(lambda: not (group / "cgroup.procs").read_text(), "the end of the group")
        group.rmdir()


def test_replica_out_of_memory_is_restarted(ship: Ship, watched: Watchers) -> None:
    before = ship.service()["active"]
    active = ship.memory().of("api", "active")
    assert active is not None
    victim = active.replicas[0]
    assert victim.pid is not None
    with limited(victim.pid, 64 * 2**20):
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"http://127.0.0.1:{victim.port}/eat", content=b"x", timeout=60)
        killed = now()
        watched.forgive(lambda e: e.sent <= killed)  # What it was working on went with it.
        until(lambda: ship.service()["active"]["restarts"] > before["restarts"], "its restart")
    ship.recovers()
    assert set(before["pids"]) - {victim.pid} < set(ship.pids("active"))
    events = (ship.environment / "events.jsonl").read_text()
    assert f".{victim.index} was killed by SIGKILL (" in events
    assert "killed by the kernel, out of memory; " in events
    for shown in (ship.where.run("status"), ship.where.run("logs", "api")):
        assert "killed by the kernel, out of memory; " in shown.stdout


def test_replica_killed_by_a_person_is_not_out_of_memory(ship: Ship, watched: Watchers) -> None:
    victim = ship.pids("active")[0]
    before = ship.service()["active"]["restarts"]
    killed = now()
    os.kill(victim, signal.SIGKILL)
    watched.forgive(lambda e: e.sent <= killed + 1)
    until(lambda: ship.service()["active"]["restarts"] > before, "its restart")
    ship.recovers()
    events = (ship.environment / "events.jsonl").read_text()
    assert "was killed by SIGKILL; restarting it." in events


def test_candidate_out_of_memory_is_rejected(ship: Ship, watched: Watchers) -> None:
    pid = observed.holder(ship.where.home / "agent")
    assert pid is not None
    with limited(pid, 256 * 2**20):
        said = ship.rejected(eats=2**29)
    assert "api was killed by SIGKILL (killed by the kernel, out of memory; the limit of" in said
    assert "is 256Mi) during start-up." in said
    assert observed.holder(ship.where.home / "agent") == pid


EATS = """
import os, sys, time
eaten = []
for number in range(60):  # Each is smaller than a replica or the command.
    if os.fork() == 0:
        eaten.append(bytearray(os.urandom(2**20) * 12))
        time.sleep(60)
        sys.exit()
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]) != 0)
"""


def test_build_out_of_memory_fails_and_replicas_keep_running(ship: Ship, watched: Watchers) -> None:
    """Replicas, the command and the build share a limit; the build's processes are the smallest."""
    before = ship.service()["active"]
    (ship.where.folder / "api" / "eat.py").write_text(EATS)
    ship.stack(usual.STACK.replace("build: ./api", "build: {path: ./api, run: python eat.py}"))
    try:
        ship.next()
        with limited(before["pids"][0], 300 * 2**20) as group:
            (group / "cgroup.procs").write_text(str(before["pids"][1]))
            deploy = ship.begin("deploy")
            (group / "cgroup.procs").write_text(str(deploy.pid))
            _, said = deploy.communicate(timeout=200)
    finally:
        ship.stack(usual.STACK)
        (ship.where.folder / "api" / "eat.py").unlink()
        ship.where.write({})
    assert deploy.returncode == 1, said
    assert "the kernel killed a process because memory ran out; the limit of control group" in said
    assert "is 300Mi" in said
    assert "Nothing was deployed." in said
    assert "Traceback" not in said
    after = ship.service()["active"]
    assert (after["pids"], after["restarts"]) == (before["pids"], before["restarts"])


def test_kill_in_another_group_is_not_explained_as_that_of_a_build(tmp_path: Path) -> None:
    """A replica may run out of memory in its group while a build fails for another reason."""
    eat = "import os; input(); bytearray(os.urandom(2**20) * 64)"
    victim = subprocess.Popen([sys.executable, "-c", eat], stdin=subprocess.PIPE)

    def end_victim() -> None:
        until((tmp_path / "began").exists, "the build")
        victim.communicate(b"\n")
        (tmp_path / "killed").touch()

    with limited(victim.pid, 32 * 2**20):
        thread = threading.Thread(target=end_victim)
        thread.start()
        script = "touch began; until test -e killed; do sleep 0.1; done; exit 1"
        error = failed_build(tmp_path, script)
        thread.join()
    assert victim.returncode == -signal.SIGKILL
    assert error.message == "It failed (exit status 1)."
