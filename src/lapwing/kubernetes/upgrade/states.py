"""An upgrade whose migration may meet no connection, as a pure function of state and event.

Some programs migrate offline: every server is stopped, the schema is changed, the new version is
started. That is an outage, so nobody gets one without having said yes, and none begins without a
way back:

    PROBING        the new version starts once, beside the old one, without traffic
    STOPPING       scheduled jobs are suspended, clients get 503 with Retry-After, the old version
                   is scaled to zero
    DISCONNECTING  the database has no connection of the program any more
    BACKING_UP     a backup is made and checked
    MIGRATING      one Job of the new version migrates
    STARTING       the new version runs and is healthy
    SWITCHING      clients reach it, scheduled jobs go on
    SUCCEEDED

PROBING ends at once in CLEAR where no migration is pending (an ordinary blue-green deployment
follows), and in REFUSED where one is and consent or the way to make a backup is missing: until then
nothing was touched. What fails before MIGRATING leads to RESTARTING: the old version runs again on
a schema that never changed. What fails from MIGRATING on leads through WITHDRAWING (the new version
is scaled to zero) and RESTORING (the backup is put back) to RESTARTING: the old version never runs
on a schema that is newer than it.

The three states of the way back can only be tried again: a failure in one stays in it, is told, and
the next run goes on there. So there is no lock to clear by hand. MIGRATING cannot be aborted: a
schema that is half changed serves nobody.

The driver (`drive.py`) saves the state before it acts; each action can be done twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    """Where an upgrade is."""

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
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"


class Event(StrEnum):
    """What can happen to an upgrade."""

    DONE = "done"
    CURRENT = "current"
    """PROBING: no migration is pending."""
    PENDING = "pending"
    """PROBING: a migration is pending."""
    FAILED = "failed"
    ABORTED = "aborted"


class Action(StrEnum):
    """What the driver has to do."""

    PROBE = "probe"
    STOP_OLD = "stop-old"
    AWAIT_NO_CONNECTION = "await-no-connection"
    BACK_UP = "back-up"
    MIGRATE = "migrate"
    START_NEW = "start-new"
    SWITCH = "switch"
    STOP_NEW = "stop-new"
    RESTORE = "restore"
    START_OLD = "start-old"


LINE = (
    State.STOPPING,
    State.DISCONNECTING,
    State.BACKING_UP,
    State.MIGRATING,
    State.STARTING,
    State.SWITCHING,
    State.SUCCEEDED,
)
WAY_BACK = (State.WITHDRAWING, State.RESTORING, State.RESTARTING)
CHANGED = frozenset({State.MIGRATING, State.STARTING, State.SWITCHING})
"""States in which the schema may be newer than the old version."""
TERMINAL = frozenset({State.CLEAR, State.REFUSED, State.SUCCEEDED, State.FAILED, State.ABORTED})
UNINTERRUPTIBLE = frozenset({State.MIGRATING, *WAY_BACK})
WORK = {
    State.PROBING: Action.PROBE,
    State.STOPPING: Action.STOP_OLD,
    State.DISCONNECTING: Action.AWAIT_NO_CONNECTION,
    State.BACKING_UP: Action.BACK_UP,
    State.MIGRATING: Action.MIGRATE,
    State.STARTING: Action.START_NEW,
    State.SWITCHING: Action.SWITCH,
    State.WITHDRAWING: Action.STOP_NEW,
    State.RESTORING: Action.RESTORE,
    State.RESTARTING: Action.START_OLD,
}


@dataclass(frozen=True, slots=True)
class Permission:
    """What the person who upgrades has given: consent to an outage, a way to make a backup."""

    downtime: bool
    backup: bool


@dataclass(frozen=True, slots=True)
class Step:
    """The state after an event, what to do in it, and, on the way back, how it will end."""

    state: State
    action: Action | None
    outcome: State | None = None


class ImpossibleEvent(Exception):
    """An event that cannot happen in this state: a defect of the driver, never of a user."""


def enter(state: State, outcome: State | None = None) -> Step:
    """A state with its action; also what a run that was interrupted goes on with."""
    return Step(state, WORK.get(state), outcome)


def step(state: State, event: Event, permission: Permission, outcome: State | None = None) -> Step:
    """What follows on an event. `outcome` is the one decided on entering the way back.

    Raises ImpossibleEvent for an event that the state cannot take.
    """
    if state is State.PROBING:
        return _probed(event, permission)
    if state in WAY_BACK:
        return _on_the_way_back(state, event, outcome)
    if state in TERMINAL or event in (Event.CURRENT, Event.PENDING):
        raise ImpossibleEvent(f"{event} in {state}")
    if event is Event.DONE:
        return enter(LINE[LINE.index(state) + 1])
    if event is Event.ABORTED and state in UNINTERRUPTIBLE:
        raise ImpossibleEvent(f"{event} in {state}")
    ends = State.ABORTED if event is Event.ABORTED else State.FAILED
    return enter(State.WITHDRAWING if state in CHANGED else State.RESTARTING, ends)


def _probed(event: Event, permission: Permission) -> Step:
    if event is Event.PENDING:
        allowed = permission.downtime and permission.backup
        return enter(State.STOPPING if allowed else State.REFUSED)
    if event is Event.DONE:
        raise ImpossibleEvent(f"{event} in {State.PROBING}")
    ends = {Event.CURRENT: State.CLEAR, Event.FAILED: State.FAILED, Event.ABORTED: State.ABORTED}
    return enter(ends[event])


def _on_the_way_back(state: State, event: Event, outcome: State | None) -> Step:
    if outcome is None or event not in (Event.DONE, Event.FAILED):
        raise ImpossibleEvent(f"{event} in {state}")
    if event is Event.FAILED:
        return enter(state, outcome)
    if state is State.RESTARTING:
        return enter(outcome)
    return enter(WAY_BACK[WAY_BACK.index(state) + 1], outcome)
