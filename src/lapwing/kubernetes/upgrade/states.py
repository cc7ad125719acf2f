"""An upgrade with an offline migration, as a pure function of state and event.

Some programs migrate offline: every server is stopped, the schema is changed, the new version is
started. That is an outage, so it needs consent and a way to restore the database:

    PROBING        the new version starts once, beside the old one, without traffic
    STOPPING       scheduled jobs are suspended, clients get 503 with Retry-After, the old version
                   is scaled to zero
    DISCONNECTING  no connection of the program to the database is left
    BACKING_UP     a backup is made and checked
    MIGRATING      one Job of the new version migrates
    STARTING       the new version is running and healthy
    SWITCHING      clients reach it, scheduled jobs resume
    SUCCEEDED

PROBING ends in CLEAR if no migration is pending (an ordinary blue-green deployment follows), in
OUTDATED if the schema is newer than the version, and in REFUSED if a migration is pending and
consent or the way to make a backup is missing: nothing was changed yet. After a failure before
MIGRATING comes RESTARTING: the old version runs again on a schema that never changed. After a
failure from MIGRATING on come WITHDRAWING (the new version is scaled to zero), RESTORING (the
backup is restored) and RESTARTING: the old version never runs on a newer schema.

WITHDRAWING, RESTORING and RESTARTING can only be retried: a failure keeps the state and is
reported, and the next run continues there, so there is no lock to clear by hand. MIGRATING cannot
be aborted: neither version can run on a half-migrated schema.

The driver saves the state before it acts; each action can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """The state of an upgrade, which names what to do in it."""

    PROBING = "probing"
    STOPPING = "stopping"
    DISCONNECTING = "disconnecting"
    BACKING_UP = "backing-up"
    MIGRATING = "migrating"
    STARTING = "starting"
    SWITCHING = "switching"
    WITHDRAWING = "withdrawing"
    RESTORING = "restoring"
    RESTARTING = "restarting"
    CLEAR = "clear"
    REFUSED = "refused"
    OUTDATED = "outdated"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"


class Event(StrEnum):
    """What can happen to an upgrade. CURRENT, PENDING and OUTDATED are results of the probe."""

    DONE = "done"
    CURRENT = "current"
    PENDING = "pending"
    OUTDATED = "outdated"
    FAILED = "failed"
    ABORTED = "aborted"


FORWARD = (
    State.STOPPING,
    State.DISCONNECTING,
    State.BACKING_UP,
    State.MIGRATING,
    State.STARTING,
    State.SWITCHING,
    State.SUCCEEDED,
)
WAY_BACK = (State.WITHDRAWING, State.RESTORING, State.RESTARTING)
SCHEMA_CHANGED = frozenset({State.MIGRATING, State.STARTING, State.SWITCHING})
"""States in which the schema may be newer than the old version."""
PROBED = frozenset({Event.CURRENT, Event.PENDING, Event.OUTDATED})
TERMINAL = frozenset(
    {State.CLEAR, State.REFUSED, State.OUTDATED, State.SUCCEEDED, State.FAILED, State.ABORTED}
)
UNINTERRUPTIBLE = frozenset({State.MIGRATING, *WAY_BACK})

MISSING_MIGRATIONS = "missing migrations"
UNKNOWN_MIGRATIONS = "unrecognized migrations"
EMPTY_DATABASE = "database is not initialized"


@dataclass(frozen=True, slots=True)
class Permission:
    """Consent to an outage, and whether a backup can be made."""

    downtime: bool
    backup: bool


@dataclass(frozen=True, slots=True)
class Step:
    """The state after an event and, on the way back, how the upgrade will end."""

    state: State
    outcome: State | None = None


class ImpossibleEvent(Exception):
    """An event that cannot happen in this state: a defect of the driver, never of a user."""


def step(state: State, event: Event, permission: Permission, outcome: State | None = None) -> Step:
    """Return what follows an event. `outcome` was decided when the way back began.

    Raises ImpossibleEvent for an event that the state cannot take.
    """
    if state is State.PROBING:
        return _probed(event, permission)
    if state in WAY_BACK:
        return _on_the_way_back(state, event, outcome)
    if state in TERMINAL or event in PROBED:
        raise ImpossibleEvent(f"{event} in {state}")
    if event is Event.DONE:
        return Step(FORWARD[FORWARD.index(state) + 1])
    if event is Event.ABORTED and state in UNINTERRUPTIBLE:
        raise ImpossibleEvent(f"{event} in {state}")
    ends = State.ABORTED if event is Event.ABORTED else State.FAILED
    return Step(State.WITHDRAWING if state in SCHEMA_CHANGED else State.RESTARTING, ends)


def _probed(event: Event, permission: Permission) -> Step:
    if event is Event.PENDING:
        is_allowed = permission.downtime and permission.backup
        return Step(State.STOPPING if is_allowed else State.REFUSED)
    if event is Event.DONE:
        raise ImpossibleEvent(f"{event} in {State.PROBING}")
    ends = {
        Event.CURRENT: State.CLEAR,
        Event.OUTDATED: State.OUTDATED,
        Event.FAILED: State.FAILED,
        Event.ABORTED: State.ABORTED,
    }
    return Step(ends[event])


def _on_the_way_back(state: State, event: Event, outcome: State | None) -> Step:
    if outcome is None or event not in (Event.DONE, Event.FAILED):
        raise ImpossibleEvent(f"{event} in {state}")
    if event is Event.FAILED:
        return Step(state, outcome)
    if state is State.RESTARTING:
        return Step(outcome)
    return Step(WAY_BACK[WAY_BACK.index(state) + 1], outcome)


@dataclass(frozen=True, slots=True)
class Probe:
    """How one start of the new version ended.

    It was healthy, or exited with a status (None: neither in time), with this end of its output.
    """

    healthy: bool
    exit_status: int | None
    output: str

    @property
    def event(self) -> Event:
        """Whether a migration is pending, by what the program itself reports.

        Fleet's server compares its migrations with those in the database before it writes anything;
        if some are missing it reports them and exits with 1. If the database has migrations that
        the server does not know, it reports them and starts. An empty database has nothing to lose.
        Source: Fleet, cmd/fleet/serve.go (fleet-v4.90), the answers of the migration status.
        """
        output = self.output.lower()
        if UNKNOWN_MIGRATIONS in output:
            return Event.OUTDATED
        if self.healthy:
            return Event.CURRENT
        if self.exit_status in (None, 0):
            return Event.FAILED
        if MISSING_MIGRATIONS in output:
            return Event.PENDING
        return Event.CURRENT if EMPTY_DATABASE in output else Event.FAILED
