"""The state that the agent keeps of one environment, and how it survives a crash.

The state is one JSON file, replaced by write, sync and rename before each act that must not be
forgotten. Processes are never looked up here alone: a replica counts as running only if a process
with its id *and* its start time exists (`processes.py`).

Deadlines are on the monotonic clock, which no clock adjustment moves. It restarts at boot, when no
warm generation that a deadline could refer to is left (`boot` identifies the boot).
"""

from __future__ import annotations

import asyncio
import functools
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, ParamSpec, TypeVar

import msgspec

from lapwing.agent.rollout import LIVE, Route, State
from lapwing.observed.status import RunStatus
from lapwing.plan.model import Document, ResourceContainer, Schedule, Service
from lapwing.system.files import write_atomic

BACKUP = "@backup"
"""The name of the job that makes backups, and of its log; not a valid name of a service."""
Slot = Literal["blue", "green"]
Role = Literal["candidate", "active", "warm", "draining"]
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Replica(msgspec.Struct, kw_only=True):
    """One process of a generation.

    `started` is its start time as reported by the kernel, so that a reused process id is never
    mistaken for it.
    """

    index: int
    port: int
    pid: int | None = None
    started: float = 0.0
    ready: bool = False
    restarts: int = 0
    crashes: int = 0
    """Exits since it last ran steadily."""
    last_exit: str | None = None


class Generation(msgspec.Struct, kw_only=True):
    """One set of replicas of one release.

    `deadline` (monotonic seconds) ends its time as warm or draining.
    """

    number: int
    service: str
    slot: Slot
    role: Role
    spec: Service
    replicas: list[Replica] = msgspec.field(default_factory=list)
    deadline: float | None = None

    @property
    def label(self) -> str:
        """Return slot and number, such as `blue-7`: unique within an environment."""
        return f"{self.slot}-{self.number}"


class RolloutRecord(msgspec.Struct, kw_only=True):
    """A rollout as persisted. `document` is what it deploys."""

    commit: str
    document: Document
    route: Route
    state: State
    outcome: State | None = None
    reason: str | None = None
    detail: str | None = None
    hint: str | None = None
    began: float = 0.0
    """Unix time, for display."""
    promoted: bool = False
    head: str | None = None
    """The newest commit with the same document (a promotion); None if it is `commit`."""
    candidates: dict[str, int] = msgspec.field(default_factory=dict)
    """Service to the generation that will receive its traffic."""
    previous: dict[str, int] = msgspec.field(default_factory=dict)
    """Service to the generation that received its traffic before the switch."""
    verdicts: dict[str, str] = msgspec.field(default_factory=dict)
    """Service to its `decide.Verdict`."""
    is_switched: bool | None = None
    """Whether requests are routed by `document`: from the switch on, until it is undone. None in
    the state of an agent that did not write it; `load` derives it then."""

    def services_with(self, verdict: str) -> list[str]:
        """Return the services with a verdict, in name order."""
        return sorted(n for n, v in self.verdicts.items() if v == verdict)


class ResourceProcess(msgspec.Struct, kw_only=True):
    """A server that the agent runs for a resource."""

    pid: int
    started: float
    port: int
    boot: str = ""
    """The boot in which it was started: later, its process id may be that of another process."""
    container: ResourceContainer | None = None
    """How it was started, if it is a container."""
    stop_signal: signal.Signals = signal.SIGTERM
    """What a process gets first when it is stopped."""


class JobRun(msgspec.Struct, kw_only=True):
    """A run of a scheduled job in progress. Without `pid` it is about to start.

    `began` is Unix time, for display; `deadline` is monotonic, in the boot `boot`.
    """

    spec: Service
    due: float
    began: float
    deadline: float
    boot: str
    log: str
    pid: int | None = None
    started: float = 0.0


class ScheduledJob(msgspec.Struct, kw_only=True):
    """A scheduled job: the schedule for which `next` (Unix time) was computed, and its runs."""

    schedule: Schedule
    next: float
    run: JobRun | None = None
    last: RunStatus | None = None


class EnvironmentState(msgspec.Struct, kw_only=True):
    """The agent's state of one environment of one stack."""

    stack: str
    environment: str
    boot: str = ""
    commit: str | None = None
    """The commit whose document is running."""
    document: Document | None = None
    """The document that is running."""
    previous: str | None = None
    """The commit that ran before: the target of an automatic rollback while its slot is warm."""
    next_number: int = 1
    generations: list[Generation] = msgspec.field(default_factory=list)
    stopping: list[Generation] = msgspec.field(default_factory=list)
    """Generations whose processes are being stopped, or will be when Envoy does not know them any
    more (those without a deadline)."""
    rollout: RolloutRecord | None = None
    jobs: dict[str, str] = msgspec.field(default_factory=dict)
    """Job name to the identity that last ran to completion."""
    resources: dict[str, ResourceProcess] = msgspec.field(default_factory=dict)
    has_containers: bool = False
    """Whether the engine may have containers of this environment: from the first deployment with
    one, until the engine has confirmed after `lapwing down` that none is left."""
    schedules: dict[str, ScheduledJob] = msgspec.field(default_factory=dict)
    """Scheduled job name to its state; also of one that is being stopped."""

    @property
    def routed_document(self) -> Document | None:
        """The document with the settings of requests: from the switch on, that of the rollout."""
        rollout = self.rollout
        return rollout.document if rollout is not None and rollout.is_switched else self.document

    @property
    def is_deploying(self) -> bool:
        """Whether a rollout is in progress that is not paused before the switch."""
        return self.rollout is not None and self.rollout.state is not State.HOLDING

    @property
    def retiring(self) -> list[Generation]:
        """Return the generations that are stopped as soon as Envoy does not know them any more."""
        return [g for g in self.stopping if g.deadline is None]

    @property
    def with_processes(self) -> list[Generation]:
        """Return the generations that may have processes."""
        return [*self.generations, *self.stopping]

    @property
    def runs(self) -> dict[str, JobRun]:
        """Return the runs of scheduled jobs in progress, by the name of the job."""
        return {n: s.run for n, s in self.schedules.items() if s.run is not None}

    def of(self, service: str, role: Role) -> Generation | None:
        """Return the newest generation of a service in a role."""
        found = [g for g in self.generations if g.service == service and g.role == role]
        return found[-1] if found else None

    def cluster_name(self, generation: Generation) -> str:
        """Return Envoy's cluster name for a generation, which is never reused."""
        return f"{self.stack}/{self.environment}/{generation.service}/{generation.label}"

    def numbered(self, number: int) -> Generation | None:
        """Return the generation with a number, if it still exists: not replicas split off it."""
        found = [g for g in self.generations if g.number == number]
        return min(found, key=lambda g: g.role == "draining", default=None)


class FileWriter:
    """Runs blocking file writes off the event loop, one at a time, in the order of the calls.

    The order holds when a caller is cancelled, too: a write that has begun completes before the
    next one begins, so an older state never replaces a newer one.
    """

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lapwing-writer")

    def submit(self, call: Callable[[], Result]) -> asyncio.Future[Result]:
        """Queue a call for the writer's thread."""
        return asyncio.get_running_loop().run_in_executor(self._executor, call)

    async def run(
        self,
        function: Callable[Parameters, Result],
        *arguments: Parameters.args,
        **options: Parameters.kwargs,
    ) -> Result:
        """Call a function in the writer's thread and return its result."""
        return await self.submit(functools.partial(function, *arguments, **options))


def save(folder: Path, state: EnvironmentState) -> None:
    """Persist the state of an environment in its folder. Raises OSError."""
    save_encoded(folder, msgspec.json.encode(state))


def save_encoded(folder: Path, data: bytes) -> None:
    """Persist an encoded state. Raises OSError.

    An unsynced copy is kept for `salvage`: without it, a damaged file would leave running processes
    that cannot be assigned. A copy that cannot be written is removed, because it would be outdated.
    """
    write_atomic(folder / "state.json", data)
    copy = folder / "state.copy.json"
    try:
        write_atomic(copy, data, sync=False)
    except OSError:
        copy.unlink(missing_ok=True)


def load(folder: Path, name: str = "state.json") -> EnvironmentState | None:
    """Return the persisted state; None if there is none.

    Raises msgspec.MsgspecError if the file is damaged.
    """
    try:
        data = (folder / name).read_bytes()
    except FileNotFoundError:
        return None
    found = msgspec.json.decode(data, type=EnvironmentState)
    if found.rollout is not None and found.rollout.is_switched is None:
        found.rollout.is_switched = _is_switched(found, found.rollout)
    return found


def _is_switched(state: EnvironmentState, record: RolloutRecord) -> bool:
    """Return whether the candidates of a rollout have the traffic, by its state and their roles."""
    candidates = [state.numbered(number) for number in record.candidates.values()]
    roles = {g.role if g is not None else None for g in candidates}
    return record.state in LIVE or record.state is State.SUCCEEDED or roles == {"active"}


def salvage(folder: Path) -> EnvironmentState | None:
    """Rename a damaged state file; returns the state from its copy, None if that is unusable."""
    path = folder / "state.json"
    path.replace(path.with_name(f"state.damaged-{int(time.time())}.json"))
    try:
        return load(folder, "state.copy.json")
    except (OSError, msgspec.MsgspecError):
        return None


def boot_id() -> str:
    """Return the kernel's id of this boot; empty where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
