"""Whether the agent is running: a kernel lock, and a record beside it.

The agent holds an exclusive lock on `agent/lock` while it runs; the kernel releases it when the
agent dies, however it dies. So a stale file never makes a dead agent look alive.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lapwing.system import locks
from lapwing.system.files import write_atomic


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
    """Take the agent's lock; returns a descriptor to keep open, None if an agent is running."""
    try:
        return locks.acquire(folder / "lock", wait=False)
    except BlockingIOError:
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
