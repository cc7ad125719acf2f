"""Whether the agent lives, as others can tell: a kernel lock, and a record beside it.

The agent holds an exclusive lock on `agent/lock` for as long as it lives; the kernel drops it when
it dies, however it dies. So "is there an agent" is never answered from a stale file.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from lapwing.system import locks
from lapwing.system.files import write_atomic


class AgentRecord(msgspec.Struct, kw_only=True):
    """What an agent says of itself. `ready` once Envoy serves and every environment is adopted;
    `problem` is why it is not, or why it ended."""

    pid: int
    version: str
    port: int
    ready: bool = False
    problem: str | None = None
    hint: str | None = None
    code: str | None = None


def hold(folder: Path) -> int | None:
    """Take the agent's lock; returns a descriptor to keep open, None if an agent has it."""
    try:
        return locks.acquire(folder / "lock", wait=False)
    except BlockingIOError:
        return None


def lives(folder: Path) -> bool:
    """Whether an agent is running."""
    return locks.is_held(folder / "lock")


def write(folder: Path, record: AgentRecord) -> None:
    """Renew the agent's record."""
    write_atomic(folder / "agent.json", msgspec.json.encode(record), None, sync=False)


def read(folder: Path) -> AgentRecord | None:
    """What the last agent said of itself; None if nothing can be read."""
    try:
        return msgspec.json.decode((folder / "agent.json").read_bytes(), type=AgentRecord)
    except (OSError, msgspec.MsgspecError):
        return None
