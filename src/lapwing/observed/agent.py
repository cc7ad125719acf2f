"""Whether the agent lives, as others can tell: a kernel lock, and a record beside it.

The agent holds an exclusive lock on `agent/lock` for as long as it lives; the kernel drops it when
it dies, however it dies. So "is there an agent" is never answered from a stale file.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import msgspec


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
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def lives(folder: Path) -> bool:
    """Whether an agent lives."""
    if not (folder / "lock").exists():
        return False
    descriptor = hold(folder)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def write(folder: Path, record: AgentRecord) -> None:
    """Renew the agent's record."""
    temporary = folder / ".agent.json.new"
    temporary.write_bytes(msgspec.json.encode(record))
    temporary.replace(folder / "agent.json")


def read(folder: Path) -> AgentRecord | None:
    """What the last agent said of itself; None if nothing can be read."""
    try:
        return msgspec.json.decode((folder / "agent.json").read_bytes(), type=AgentRecord)
    except (OSError, msgspec.MsgspecError):
        return None
