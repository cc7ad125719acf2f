"""The footprint of real processes: all of a session, and nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lapwing.agent import processes, termination
from lapwing.agent.footprint import footprints
from lapwing.agent.processes import Identity, Launch

MIB = 2**20
BUSY = """
import os, time
def burn(seconds):
    while time.process_time() < seconds: pass
child = os.fork()
if child == 0:
    burn(0.4)
    os._exit(0)
os.waitpid(child, 0)
if os.fork() == 0:
    burn(0.3)
    print("done", flush=True)
    time.sleep(600)
time.sleep(600)
"""
LARGE = """
import os, time
block = bytearray(os.urandom(1024) * 1024 * 96)
for _ in range(3):
    if os.fork() == 0: time.sleep(600)
print("done", flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def running(program: str, folder: Path) -> Iterator[Identity]:
    """A program in a session of its own, once it has printed `done`."""
    log = folder / "log"
    identity = processes.spawn(Launch((sys.executable, "-c", program), {}, folder), log)
    try:
        until = time.monotonic() + 60
        while "done" not in log.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        yield identity
    finally:
        asyncio.run(termination.kill(identity))


def test_cpu_of_running_and_exited_children(tmp_path: Path) -> None:
    with running(BUSY, tmp_path) as identity:
        found = footprints([identity.pid])[identity.pid]
        assert 0.68 <= found.cpu < 2
        without = footprints([identity.pid], memory=False)[identity.pid]
        assert without.memory == 0
        assert without.cpu >= found.cpu
        assert found.memory > MIB


def test_shared_memory_is_counted_once(tmp_path: Path) -> None:
    with running(LARGE, tmp_path) as identity:
        found = footprints([identity.pid])[identity.pid]
        assert 96 * MIB <= found.memory < 192 * MIB


def test_other_sessions_are_left_out(tmp_path: Path) -> None:
    with running(BUSY, tmp_path) as identity:
        assert set(footprints([identity.pid])) == {identity.pid}
        assert footprints([]) == {}
