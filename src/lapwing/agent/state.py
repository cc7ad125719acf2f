"""What the agent remembers of one environment, and how it survives a kill.

The state is one JSON file, replaced by write, sync and rename before each act that must not be
forgotten. Truth about processes is never taken from here alone: a replica counts as running only
if a process with its id *and* its start time exists (`processes.py`).

Deadlines are on the monotonic clock, which no clock adjustment moves; it begins anew at boot, and
then nothing warm is left that a deadline could be about (`boot` tells).
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import msgspec

from lapwing.agent.rollout import Route, State
from lapwing.plan.model import Document, Service
from lapwing.system.files import write_atomic

Slot = Literal["blue", "green"]
Role = Literal["candidate", "active", "warm", "draining"]


class Replica(msgspec.Struct, kw_only=True):
    """One process of a generation. `started` is the process's start time as the kernel tells it,
    so a recycled process id is never taken for ours."""

    index: int
    port: int
    pid: int | None = None
    started: float = 0.0
    ready: bool = False
    restarts: int = 0
    last_exit: str | None = None


class Generation(msgspec.Struct, kw_only=True):
    """One set of replicas of one release. `deadline` (monotonic seconds) ends its warmth or its
    draining."""

    number: int
    service: str
    slot: Slot
    role: Role
    spec: Service
    replicas: list[Replica] = msgspec.field(default_factory=list)
    deadline: float | None = None

    @property
    def label(self) -> str:
        """Slot and number, such as `blue-7`: unique within an environment."""
        return f"{self.slot}-{self.number}"


class RolloutRecord(msgspec.Struct, kw_only=True):
    """A rollout as persisted. `document` is what it leads to."""

    commit: str
    document: Document
    route: Route
    state: State
    outcome: State | None = None
    reason: str | None = None
    detail: str | None = None
    hint: str | None = None
    began: float = 0.0
    """Unix time, for people."""
    promoted: bool = False
    head: str | None = None
    """The newest commit that wants the same (a promotion); None if it is `commit`."""
    candidates: dict[str, int] = msgspec.field(default_factory=dict)
    """Service to the generation that is to have its traffic."""
    previous: dict[str, int] = msgspec.field(default_factory=dict)
    """Service to the generation that had its traffic before the switch."""
    verdicts: dict[str, str] = msgspec.field(default_factory=dict)
    """Service to its `decide.Verdict`."""

    def having(self, verdict: str) -> list[str]:
        """The services with a verdict, in name order."""
        return sorted(n for n, v in self.verdicts.items() if v == verdict)


class ResourceProcess(msgspec.Struct, kw_only=True):
    """A server that the agent runs for a resource."""

    pid: int
    started: float
    port: int


class EnvironmentState(msgspec.Struct, kw_only=True):
    """All that the agent remembers of one environment of one stack."""

    stack: str
    environment: str
    boot: str = ""
    commit: str | None = None
    """The commit whose document runs."""
    document: Document | None = None
    """The document that runs."""
    next_number: int = 1
    generations: list[Generation] = msgspec.field(default_factory=list)
    rollout: RolloutRecord | None = None
    jobs: dict[str, str] = msgspec.field(default_factory=dict)
    """Job name to the identity that last ran to its end."""
    resources: dict[str, ResourceProcess] = msgspec.field(default_factory=dict)

    def of(self, service: str, role: Role) -> Generation | None:
        """The generation of a service in a role (draining ones may be several; the newest)."""
        found = [g for g in self.generations if g.service == service and g.role == role]
        return found[-1] if found else None

    def numbered(self, number: int) -> Generation | None:
        """The generation with a number, if it still exists."""
        return next((g for g in self.generations if g.number == number), None)


def save(folder: Path, state: EnvironmentState) -> None:
    """Persist the state of an environment in its folder. Raises OSError.

    A copy is put beside it, unsynced, for the day on which somebody damages the file: without it
    nobody could say which of the running processes is what. One that cannot be written is removed,
    because an old one would be believed.
    """
    data = msgspec.json.encode(state)
    write_atomic(folder / "state.json", data)
    copy = folder / "state.copy.json"
    try:
        write_atomic(copy, data, sync=False)
    except OSError:
        copy.unlink(missing_ok=True)


def load(folder: Path, name: str = "state.json") -> EnvironmentState | None:
    """The persisted state; None if there is none.

    Raises msgspec.MsgspecError if the file is damaged.
    """
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(data, type=EnvironmentState)


def salvage(folder: Path) -> EnvironmentState | None:
    """Put a damaged state aside; returns what its copy says, None if that is of no use either."""
    path = folder / "state.json"
    path.replace(path.with_name(f"state.damaged-{int(time.time())}.json"))
    try:
        return load(folder, "state.copy.json")
    except (OSError, msgspec.MsgspecError):
        return None


def boot_id() -> str:
    """What tells this boot of the machine from any other; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
