"""Status and events of an environment: written by the agent, read by the CLI and the console.

The agent writes two files for each environment: `status.json`, replaced at every change, and
`events.jsonl`, one line per event, rotated so that it stays bounded. Readers use nothing else. The
last status of an agent that is not running is never shown as the present one: a reader has to check
`observed.agent.is_running`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from lapwing.observed.follow import LineFollower
from lapwing.system.files import write_atomic

Phase = Literal[
    "running", "starting", "degraded", "crashing", "held", "stopped", "done", "scheduled"
]
FILE = "status.json"
MAX_EVENTS_BYTES = 4 * 1024 * 1024
"""Size above which the event log is rotated; one old file is kept."""
OLD_EVENTS = "events.1.jsonl"


RunOutcome = Literal["succeeded", "failed", "skipped", "missed", "interrupted"]


class RunStatus(msgspec.Struct, kw_only=True):
    """How a run of a scheduled job, or of a backup, ended.

    `due` is the time at which it was scheduled (Unix time). `began` is None for a run that was not
    started: `skipped` because the one before was still running, `missed` because no agent was.
    """

    due: float
    outcome: RunOutcome
    began: float | None = None
    ended: float | None = None
    reason: str | None = None


class ScheduleStatus(msgspec.Struct, kw_only=True):
    """The schedule of a job: when it is due next, and its runs (times as Unix time).

    `running_since` is None while no run is in progress.
    """

    cron: str
    timezone: str
    next: float | None = None
    running_since: float | None = None
    last: RunStatus | None = None


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A resource or volume that is not in a backup, and why."""

    name: str
    reason: str


class BackupStatus(msgspec.Struct, kw_only=True):
    """The scheduled backups of an environment, and the newest complete one (`created`: Unix time).

    `schedule` is None if backups are only made by hand. `left_out` is what is not in the newest
    backup; before the first backup, what will not be in it. `missing` is the error if they
    cannot be read.
    """

    schedule: ScheduleStatus | None = None
    newest: str | None = None
    created: float | None = None
    bytes: int = 0
    count: int = 0
    left_out: list[LeftOut] = []
    missing: str | None = None


class SlotStatus(msgspec.Struct, kw_only=True):
    """One slot of a service. `ready` counts replicas that are running and healthy."""

    slot: str
    release: str
    revision: str
    replicas: int
    ready: int
    restarts: int = 0
    last_exit: str | None = None
    """How a restarted replica ended; one of them if several were restarted."""
    pids: list[int] = []
    warm_for: float | None = None
    """Seconds for which an idle slot stays warm, at the time of writing."""


class ScalingStatus(msgspec.Struct, kw_only=True):
    """How many replicas an autoscaled service should have, between `min` and `max`, and why."""

    min: int
    max: int
    wanted: int
    reason: str


class ServiceStatus(msgspec.Struct, kw_only=True):
    """One service. `draining` counts older generations with open connections."""

    name: str
    kind: str
    phase: Phase
    route: str | None = None
    active: SlotStatus | None = None
    idle: SlotStatus | None = None
    draining: int = 0
    scaling: ScalingStatus | None = None
    """None without autoscaling, and until the load was measured."""
    schedule: ScheduleStatus | None = None


class RolloutStatus(msgspec.Struct, kw_only=True):
    """The rollout in progress."""

    commit: str
    state: str
    services: list[str] = []
    outcome: str | None = None
    reason: str | None = None
    preview: str | None = None


class ResourceStatus(msgspec.Struct, kw_only=True):
    """A resource and its provider. `running` is None where Lapwing does not run it.

    `warning` is how its data is exposed.
    """

    name: str
    kind: str
    provider: str
    running: bool | None = None
    warning: str | None = None


class MaintenanceStatus(msgspec.Struct, kw_only=True):
    """Who began the maintenance in progress, and when (ISO 8601, UTC)."""

    actor: str
    since: str


class RestoreStatus(msgspec.Struct, kw_only=True):
    """The restore in progress: of which resource or volume, and from which backup."""

    name: str
    backup: str


class Status(msgspec.Struct, kw_only=True):
    """The status of one environment of one stack, at `updated` (Unix time)."""

    stack: str
    environment: str
    url: str
    commit: str | None = None
    services: list[ServiceStatus] = []
    resources: list[ResourceStatus] = []
    backup: BackupStatus | None = None
    restore: RestoreStatus | None = None
    rollout: RolloutStatus | None = None
    maintenance: MaintenanceStatus | None = None
    """Set while clients get the maintenance page instead of every route."""
    problem: str | None = None
    advice: list[str] = []
    """What to change: files that the next release would not have, ports open to other machines."""
    log_problem: str | None = None
    """Why not all logs are shipped; requests are not affected."""
    running: bool = False
    """Whether any process is running: replicas, also draining and stopping ones, or databases."""
    stopping: dict[str, float] = {}
    """The services and resources of which processes are being stopped, and the seconds, at the time
    of writing, until these are killed."""
    updated: float = 0.0

    @property
    def is_stopping(self) -> bool:
        """Whether processes are being stopped, or run although no service is desired any more."""
        return bool(self.stopping or (self.running and not self.services))


class Event(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One event.

    `kind`: `state` (a rollout entered a state), `note` (progress in words), `outcome` (a rollout
    ended), `replica` and `resource` (one crashed or was restarted, or their number changed), `job`
    (a scheduled run did not succeed), `agent`.
    """

    time: float
    kind: Literal["state", "note", "outcome", "replica", "resource", "job", "agent"]
    text: str
    commit: str | None = None
    state: str | None = None
    outcome: str | None = None
    detail: str | None = None
    hint: str | None = None


def write(folder: Path, status: Status) -> None:
    """Replace the status file. Not synced: after a power failure a new agent writes a new one."""
    write_atomic(folder / FILE, msgspec.json.encode(status), None, sync=False)


def read(folder: Path) -> Status | None:
    """Return the last status written; None if there is none that can be read."""
    try:
        return msgspec.json.decode((folder / FILE).read_bytes(), type=Status)
    except (OSError, msgspec.MsgspecError):
        return None


def read_all(home: Path) -> Iterator[tuple[Path, Status]]:
    """Yield the folder and the status of each environment of a home that can be read, by name."""
    for path in sorted((home / "environments").glob(f"*/*/{FILE}")):
        if (found := read(path.parent)) is not None:
            yield path.parent, found


def append(folder: Path, event: Event) -> None:
    """Append an event to the log in one write, so that readers see whole lines.

    Raises OSError, and then appends nothing: a partial line would damage the next one, too.
    """
    path = folder / "events.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    line = msgspec.json.encode(event) + b"\n"
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        written = os.write(descriptor, line)
        if written < len(line):
            os.ftruncate(descriptor, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
    finally:
        os.close(descriptor)
    if before + written > MAX_EVENTS_BYTES:
        path.replace(folder / OLD_EVENTS)


class Follower:
    """Reads new events, from the end that the log had when the follower was created."""

    def __init__(self, folder: Path) -> None:
        path = folder / "events.jsonl"
        self._lines = LineFollower(path, folder / OLD_EVENTS)
        try:
            self._lines.begin(path.stat())
        except OSError:
            pass

    def read(self) -> list[Event]:
        """Return the events since the last call.

        Invalid lines, which a power failure can leave, are skipped.
        """
        return [event for line in self._lines.read() if (event := _event(line)) is not None]


def _event(line: bytes) -> Event | None:
    try:
        return msgspec.json.decode(line, type=Event)
    except msgspec.MsgspecError:
        return None
