"""Leads an offline upgrade: does what `states.py` names, and saves where it is before each act.

What acts on the cluster is a `Cluster` here, one method for each action, so that the order of
things can be tested against every moment of interruption. A method returns when its work is done,
and raises LapwingError when it cannot be; each can be called again after an interruption.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from lapwing.errors import LapwingError
from lapwing.kubernetes.upgrade import probe as probes
from lapwing.kubernetes.upgrade.probe import Probe, Verdict
from lapwing.kubernetes.upgrade.states import (
    TERMINAL,
    WAY_BACK,
    Action,
    Event,
    Permission,
    State,
    Step,
    enter,
    step,
)


class DowntimeError(LapwingError):
    """The new version has a migration that needs the database for itself. Nothing was touched."""

    code = "downtime"
    http_status = 409


class UpgradeError(LapwingError):
    """An upgrade failed. The old version serves, or the message says what is left to do."""

    code = "upgrade"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an upgrade is: what is saved before each act. `backup` names the checked backup."""

    release: str
    state: State
    outcome: State | None = None
    backup: str | None = None
    reason: str | None = None


class Records(Protocol):
    """Where the record of the upgrade under way is kept; None when there is none."""

    def load(self) -> Record | None: ...

    def save(self, record: Record | None) -> None: ...


class Cluster(Protocol):
    """What can be done to the service and its database."""

    def probe(self) -> Probe: ...

    def stop_old(self) -> None: ...

    def await_no_connection(self) -> None: ...

    def back_up(self) -> str:
        """Makes a backup, checks it and returns its name."""
        ...

    def migrate(self) -> None: ...

    def start_new(self) -> None: ...

    def switch(self) -> None: ...

    def stop_new(self) -> None: ...

    def restore(self, backup: str) -> None: ...

    def start_old(self) -> None: ...


def upgrade(release: str, permission: Permission, cluster: Cluster, records: Records) -> State:
    """Upgrade to a release, or go on with the upgrade that was interrupted. Returns CLEAR where no
    migration is pending (then nothing was done) or SUCCEEDED.

    Raises DowntimeError where consent or a way to make a backup is missing, UpgradeError where the
    upgrade failed.
    """
    record = records.load() or Record(release=release, state=State.PROBING)
    if record.release != release and record.state not in WAY_BACK:
        raise UpgradeError(
            f"An upgrade to {record.release} is under way ({record.state}).",
            hint=f"Deploy {record.release} again: it goes on where it was interrupted.",
        )
    while record.state not in TERMINAL:
        if record.state is not State.PROBING:
            records.save(record)
        was = record.state
        record = _advance(record, permission, cluster)
        if record.state is was and was in WAY_BACK:
            records.save(record)
            raise _stuck(record)
    records.save(None)
    return _end(record, permission)


def _advance(record: Record, permission: Permission, cluster: Cluster) -> Record:
    """Do the work of the present state; the record after it."""
    now = enter(record.state, record.outcome)
    try:
        event, backup, reason = _act(now, record, cluster)
    except LapwingError as error:
        said = "\n".join(t for t in (error.message, error.detail) if t)
        reason = said if now.state in WAY_BACK else record.reason or said
        event, backup = Event.FAILED, record.backup
    after = step(record.state, event, permission, record.outcome)
    return msgspec.structs.replace(
        record, state=after.state, outcome=after.outcome, backup=backup, reason=reason
    )


def _act(now: Step, record: Record, cluster: Cluster) -> tuple[Event, str | None, str | None]:
    """The event, the backup that is known, and why, if it went wrong."""
    if now.action is Action.PROBE:
        return _probe(cluster.probe())
    if now.action is Action.BACK_UP:
        backup = cluster.back_up()
        if not backup:
            return Event.FAILED, None, "There is no backup that was checked."
        return Event.DONE, backup, None
    if now.action is Action.RESTORE:
        assert record.backup is not None
        cluster.restore(record.backup)
    elif now.action is not None:
        acts = {
            Action.STOP_OLD: cluster.stop_old,
            Action.AWAIT_NO_CONNECTION: cluster.await_no_connection,
            Action.MIGRATE: cluster.migrate,
            Action.START_NEW: cluster.start_new,
            Action.SWITCH: cluster.switch,
            Action.STOP_NEW: cluster.stop_new,
            Action.START_OLD: cluster.start_old,
        }
        acts[now.action]()
    return Event.DONE, record.backup, record.reason


def _probe(probe: Probe) -> tuple[Event, str | None, str | None]:
    found = probes.verdict(probe)
    if found is Verdict.PENDING:
        return Event.PENDING, None, None
    if found is Verdict.BROKEN:
        return Event.FAILED, None, "The new version does not start:\n" + probes.last_lines(probe)
    return Event.CURRENT, None, None


def _end(record: Record, permission: Permission) -> State:
    if record.state is State.REFUSED:
        missing = "--allow-downtime" if not permission.downtime else "a way to make a backup"
        raise DowntimeError(
            f"{record.release} changes the database, and no server may run meanwhile: this is an "
            f"upgrade with a short outage, and {missing} is missing. Nothing was touched.",
            hint="Say `lapwing deploy --allow-downtime`, at a time when an outage does little harm."
            if not permission.downtime
            else "Give the stack's database `backup: true`, or say --backup and --restore.",
        )
    if record.state in (State.FAILED, State.ABORTED):
        first, _, detail = (record.reason or "It was aborted.").partition("\n")
        raise UpgradeError(
            f"The upgrade to {record.release} was undone: {first}",
            hint="The version before it serves, on its own schema.",
            detail=detail or None,
        )
    return record.state


def _stuck(record: Record) -> UpgradeError:
    kept = f" The backup is {record.backup}." if record.backup else ""
    return UpgradeError(
        f"Going back from {record.release} stopped at `{record.state}`: {record.reason}{kept}",
        hint="Clients get 503 until it goes on. Repair what it names, and deploy again.",
    )
