"""The end of a process: no thread and no child of it is left, and each was asked to end first."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lapwing.agent import cgroups, process_tree, processes, termination
from lapwing.agent.processes import MARK, Identity, Launch
from tests.needs import require

OTHER_PROCESS = """
import ctypes, os, socket, sys, threading, time
if os.fork():
    os._exit(0)
os.setsid()
listener = socket.create_server(("127.0.0.1", 0))
def serve():
    time.sleep(0.1)
    print(os.getpid(), listener.getsockname()[1], flush=True)
    os.close(1)
    time.sleep(600)
threading.Thread(target=serve).start()
ctypes.CDLL(None).pthread_exit(None)
"""
"""A process that is not a child, whose first thread is a zombie and whose second one listens."""


def test_kill_waits_for_the_last_thread() -> None:
    made = subprocess.run(
        [sys.executable, "-c", OTHER_PROCESS], stdout=subprocess.PIPE, check=True, timeout=60
    )
    pid, port = map(int, made.stdout.split())
    assert processes.started(pid) is None, "its first thread has exited"
    began = time.monotonic()
    asyncio.run(termination.wait_gone(pid, timeout=0.3))
    assert time.monotonic() - began >= 0.3, "its second thread has not"
    asyncio.run(termination.kill(Identity(pid, 0.0), watched=True))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


MARK_VALUE = f"/home-{os.getpid()}|shop/local/api/blue-1/0"
"""Another one in each test process: `stop` ends every process that has it."""
WORKER = """
import os, signal, sys, time
def end(*_):
    open(f"{sys.argv[1]}.signalled", "w").close()
    time.sleep(float(sys.argv[2]))
    open(f"{sys.argv[1]}.finished", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open(f"{sys.argv[1]}.started", "w").write(str(os.getpid()))
time.sleep(600)
"""
POOL = """
import signal, subprocess, sys, time
own = "-d" in sys.argv
child = subprocess.Popen([sys.executable, "worker.py", "child", "0"], start_new_session=own)
def end(*_):
    time.sleep(1)
    open("parent.finished", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open("parent.started", "w").close()
time.sleep(600)
"""
"""A server with a child, which it would end itself."""
SCRIPT = """\
#!/bin/sh
trap : TERM
python worker.py one 1
"""
"""A script, whose name the kernel reports instead of the shell's."""


async def started(folder: Path, command: str, *names: str) -> Identity:
    """Start a shell command in a folder with the two programs, and wait for these workers."""
    (folder / "worker.py").write_text(WORKER)
    (folder / "pool.py").write_text(POOL)
    (folder / "run.sh").write_text(SCRIPT)
    (folder / "run.sh").chmod(0o755)
    environ = {MARK: MARK_VALUE, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    launch = Launch(("/bin/sh", "-c", command), environ, folder)
    identity = processes.spawn(launch, folder / "log")
    while not all((folder / f"{n}.started").exists() for n in names):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    return identity


@pytest.mark.parametrize(
    "command",
    [
        "python worker.py one 1\ntrue",
        "python worker.py one 1 | cat",
        "sh -c 'python worker.py one 1; true'; true",
        "trap '' TERM; python worker.py one 1 & wait; true",
        "(setsid python worker.py one 1 &) ; sleep 600",
        "exec ./run.sh",
    ],
)
async def test_program_below_a_shell_has_time_to_finish(tmp_path: Path, command: str) -> None:
    identity = await started(tmp_path, command, "one")
    await termination.stop(identity, 10, MARK_VALUE)
    assert (tmp_path / "one.finished").exists()
    assert not processes.started(int((tmp_path / "one.started").read_text()))
    assert not processes.started(identity.pid)


@pytest.mark.parametrize("option", ["", "-d"])
async def test_child_of_a_server_is_signalled_after_the_server(tmp_path: Path, option: str) -> None:
    """A job queue ends its pool itself; a child that it forgets still gets SIGTERM, then SIGKILL,
    also when it is in a session of its own."""
    identity = await started(tmp_path, f"exec python pool.py {option}", "parent", "child")
    stopping = asyncio.create_task(termination.stop(identity, 10, MARK_VALUE))
    await asyncio.sleep(0.5)
    assert not (tmp_path / "child.signalled").exists()
    await stopping
    assert (tmp_path / "parent.finished").exists()
    assert (tmp_path / "child.finished").exists()
    assert not processes.started(int((tmp_path / "child.started").read_text()))


ESCAPEES = "exec python worker.py one 0 & setsid env -i $(which python) worker.py two 1; true"
"""Two workers; the second one is in a session of its own and has no variable."""


async def test_process_with_own_session_and_empty_environment_is_stopped(tmp_path: Path) -> None:
    """Its control group finds it; the group is removed with its last process."""
    require("cgroup")
    identity = await started(tmp_path, ESCAPEES, "one", "two")
    pid = int((tmp_path / "two.started").read_text())
    home, _, owner = MARK_VALUE.partition("|")
    assert cgroups.owner(pid, home) == owner
    [group] = groups_of(pid)
    assert (Identity(pid, processes.started(pid) or 0.0), owner) in process_tree.owned(Path(home))
    await termination.stop(identity, 10, MARK_VALUE)
    assert (tmp_path / "two.finished").exists(), "it had SIGTERM and time"
    assert not processes.started(pid)
    assert not group.exists()
    assert not group.parent.exists()


async def test_escaped_process_is_killed_when_its_replica_crashed(tmp_path: Path) -> None:
    require("cgroup")
    identity = await started(tmp_path, ESCAPEES, "one", "two")
    pid = int((tmp_path / "two.started").read_text())
    os.kill(identity.pid, signal.SIGKILL)
    await processes.ended(identity)
    await termination.kill(identity, MARK_VALUE, watched=True)
    assert not processes.started(pid)


async def test_stop_without_control_groups_is_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no group can be made, a new session alone hides nothing."""
    monkeypatch.setattr(cgroups, "_hierarchies", lambda: iter([(tmp_path / "no", tmp_path)]))
    (tmp_path / "no").touch()
    identity = await started(tmp_path, "python worker.py one 0 & setsid python worker.py two 1")
    await termination.stop(identity, 10, MARK_VALUE)


async def test_agent_started_by_a_replica_is_not_in_its_group(tmp_path: Path) -> None:
    """Such as by the console: it outlives the replica, with its log."""
    require("cgroup")
    program = (
        "from lapwing.agent import processes; from pathlib import Path;"
        "launch = processes.Launch(('sleep', '600'), {'PATH': '/usr/bin:/bin'}, Path.cwd());"
        "print(processes.spawn(launch, Path('agent.log')).pid, flush=True)"
    )
    environ = {MARK: MARK_VALUE, "PATH": os.environ["PATH"]}
    launch = Launch((sys.executable, "-c", program), environ, tmp_path)
    identity = processes.spawn(launch, tmp_path / "log")
    await processes.ended(identity)
    pid = int((tmp_path / "log").read_text())
    try:
        await termination.kill(identity, MARK_VALUE, watched=True)
        assert processes.started(pid)
        assert not groups_of(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


def groups_of(pid: int) -> list[Path]:
    """The control groups of Lapwing in which a process is."""
    paths = [line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    found = [Path(f"{m}{p}") for p in paths if "/lapwing-" in p for m in mounts if "cgroup" in m]
    return [path for path in found if path.is_dir()]


async def test_what_exceeds_the_grace_is_killed(tmp_path: Path) -> None:
    identity = await started(
        tmp_path, "python worker.py one 60 & setsid python worker.py two 60", "one", "two"
    )
    began = time.monotonic()
    await termination.stop(identity, 0.5, MARK_VALUE)
    assert time.monotonic() - began < 5
    for name in ("one", "two"):
        assert not processes.started(int((tmp_path / f"{name}.started").read_text()))
        assert not (tmp_path / f"{name}.finished").exists()


async def test_outdated_record_kills_no_other_program(tmp_path: Path) -> None:
    """A process id of a record may be that of another session whose first process has exited."""
    identity = await started(tmp_path, "python worker.py one 0 & exit", "one")
    await processes.ended(identity)
    other = int((tmp_path / "one.started").read_text())
    assert os.getsid(other) == identity.pid
    await termination.stop(Identity(identity.pid, 1.0), 0.1, "/home|another")
    await termination.kill(Identity(identity.pid, 1.0))
    assert processes.started(other)
    assert not (tmp_path / "one.signalled").exists()
    await termination.kill(identity, MARK_VALUE)
    assert not processes.started(other)


def test_name_that_is_not_utf8(tmp_path: Path) -> None:
    program = (
        "import ctypes, time; "
        "ctypes.CDLL(None).prctl(15, b'worker-\\xc3\\xa9\\xff'); print('named', flush=True); "
        "time.sleep(600)"
    )
    log = tmp_path / "a.log"
    identity = processes.spawn(Launch((sys.executable, "-c", program), {}, tmp_path), log)
    try:
        while "named" not in log.read_text():
            time.sleep(0.01)
        assert b"\xff" in Path(f"/proc/{identity.pid}/stat").read_bytes()
        assert processes.alive(identity)
    finally:
        asyncio.run(termination.kill(identity, watched=True))
    assert not processes.alive(identity)
