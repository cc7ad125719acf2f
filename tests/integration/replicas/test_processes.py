"""The end of a process: no thread and no child of it is left, and each was asked to end first."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lapwing.agent import processes, termination
from lapwing.agent.processes import MARK, Identity, Launch

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
