"""Whether the agent is running: a kernel lock, and a record beside it.

The agent holds an exclusive lock on `agent/lock` while it runs; the kernel releases it when the
agent dies, however it dies. So a stale file never makes a dead agent look alive, and the agent
writes the record again if it is missing or wrong.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import msgspec

from lapwing.system import locks
from lapwing.system.files import write_atomic

HOLD_TIMEOUT_S = 0.5
"""How long an agent that starts tries to take the lock."""


class AgentRecord(msgspec.Struct, kw_only=True):
    """An agent's report about itself.

    `ready` is set once Envoy is running and every environment is adopted; `problem` is why it is
    not, or why the agent exited.
    """

    pid: int
    version: str
    port: int
    ready: bool = False
    problem: str | None = None
    hint: str | None = None
    code: str | None = None


def hold(folder: Path) -> int | None:
    """Take the agent's lock; returns a descriptor to keep open, None if an agent is running.

    The file then has the holder's process id. Commands take the lock for a moment to see whether an
    agent is running, so this tries for HOLD_TIMEOUT_S seconds, but not while the last holder is
    alive: an agent that waited for it would continue after `lapwing agent stop`.
    """
    until = time.monotonic() + HOLD_TIMEOUT_S
    while True:
        try:
            descriptor = locks.acquire(folder / "lock", wait=False)
        except BlockingIOError:
            if time.monotonic() > until or _is_last_holder_alive(folder):
                return None
            time.sleep(0.01)
            continue
        return _sign(descriptor)


def keep(folder: Path, descriptor: int) -> int | None:
    """Return the descriptor of the agent's lock, taken again if its file was removed.

    None if another agent has the new file's lock: there must be one agent only.
    """
    if locks.is_open_file(folder / "lock", descriptor):
        return descriptor
    try:
        return _sign(locks.acquire(folder / "lock", wait=False))
    except BlockingIOError:
        return None


def _sign(descriptor: int) -> int:
    """Write the process ID into the lock file."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def _is_last_holder_alive(folder: Path) -> bool:
    try:
        os.kill(int((folder / "lock").read_text()), 0)
    except PermissionError:
        return True
    except (OSError, ValueError):
        return False
    return True


def holder(folder: Path) -> int | None:
    """Return the process id of the running agent; None if it is not running.

    A holder without one has taken the lock this moment: to see whether an agent is running, or to
    become the agent. The id in the agent's record may then be that of another process.
    """
    until = time.monotonic() + HOLD_TIMEOUT_S
    while is_running(folder) and time.monotonic() < until:
        with contextlib.suppress(OSError, ValueError):
            return int((folder / "lock").read_text())
        time.sleep(0.005)
    return None


def is_running(folder: Path) -> bool:
    """Return whether an agent is running."""
    return locks.is_held(folder / "lock")


def write(folder: Path, record: AgentRecord) -> None:
    """Replace the agent's record, on a full disk with the reserve: commands wait for it."""
    path, data = folder / "agent.json", msgspec.json.encode(record)
    try:
        write_atomic(path, data, None, sync=False)
    except OSError:
        write_atomic(path, data, None)


def read(folder: Path) -> AgentRecord | None:
    """Return the record of the last agent; None if there is none that can be read."""
    try:
        return msgspec.json.decode((folder / "agent.json").read_bytes(), type=AgentRecord)
    except (OSError, msgspec.MsgspecError):
        return None
