"""Drives an upgrade: does what each state of `states` names, and saves the state before each act.

What acts on the cluster is a `Cluster` here, one method for each state, so that the order of things
can be tested against every moment of interruption. A method returns when its work is done, and
raises LapwingError if it fails; each can be repeated after an interruption.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from lapwing.errors import LapwingError
from lapwing.kubernetes.upgrade.states import (
    TERMINAL,
    WAY_BACK,
    Event,
    Permission,
    Probe,
    State,
    step,
)

OUTPUT_LINES = 15


class DowntimeError(LapwingError):
    """The new version has an offline migration, which was not allowed. Nothing was changed."""

    code = "downtime"


class UpgradeError(LapwingError):
    """An upgrade failed. The old version serves, or the message says what is left to do."""

    code = "upgrade"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of an upgrade, saved before each act. `backup` names the checked backup."""

    release: str
    state: State
    outcome: State | None = None
    backup: str | None = None
    reason: str | None = None


class Records(Protocol):
    """Where the record of the upgrade in progress is stored."""

    def load(self) -> Record | None:
        """Return the record; None if no upgrade is in progress."""

    def save(self, record: Record | None) -> None:
        """Save the record; None ends the upgrade."""


class Cluster(Protocol):
    """What can be done to the service and its database."""

    def probe(self) -> Probe:
        """Start the new version once, without traffic."""

    def stop_old(self) -> None:
        """Suspend scheduled jobs and scale everything that uses the database to zero."""

    def await_no_connection(self) -> None:
        """Wait until no connection to the database is left."""

    def back_up(self) -> str:
        """Make a backup, check it, and return its name."""

    def migrate(self) -> None:
        """Run the migration once."""

    def start_new(self) -> None:
        """Start the new version and wait until it is ready."""

    def switch(self) -> None:
        """Route clients to the new version and resume scheduled jobs."""

    def stop_new(self) -> None:
        """Stop everything of the new version, the migration included."""

    def restore(self, backup: str) -> None:
        """Restore a backup."""

    def start_old(self) -> None:
        """Start the old version as it was."""


def upgrade(
    release: str, environment: str, permission: Permission, cluster: Cluster, records: Records
) -> State:
    """Upgrade an environment to a release, or continue an interrupted upgrade.

    Returns CLEAR if no migration is pending (nothing was done then), or SUCCEEDED.

    Raises DowntimeError if consent or a way to make a backup is missing, UpgradeError if the
    upgrade failed.
    """
    record = records.load() or Record(release=release, state=State.PROBING)
    if record.release != release and record.state not in WAY_BACK:
        raise UpgradeError(
            f"An upgrade to {record.release} is in progress ({record.state}).",
            hint=f"Deploy {record.release} again: it continues where it was interrupted.",
        )
    while record.state not in TERMINAL:
        if record.state is not State.PROBING:
            records.save(record)
        before = record.state
        record = _advance(record, permission, cluster)
        if record.state is before and before in WAY_BACK:
            records.save(record)
            raise _stuck(record, environment)
    records.save(None)
    return _end(record, environment, permission)


def _advance(record: Record, permission: Permission, cluster: Cluster) -> Record:
    """Do the work of a state; returns the record after it."""
    event, backup, reason = Event.DONE, record.backup, record.reason
    try:
        if record.state is State.PROBING:
            event, reason = _probe(cluster)
        elif record.state is State.BACKING_UP:
            backup = cluster.back_up()
            if not backup:
                raise LapwingError("No backup was made.")
        else:
            _act(record, cluster)
    except LapwingError as error:
        text = "\n".join(t for t in (error.message, error.detail) if t)
        reason = text if record.state in WAY_BACK else record.reason or text
        event = Event.FAILED
    after = step(record.state, event, permission, record.outcome)
    return msgspec.structs.replace(
        record, state=after.state, outcome=after.outcome, backup=backup or None, reason=reason
    )


def _act(record: Record, cluster: Cluster) -> None:
    if record.state is State.RESTORING:
        assert record.backup is not None
        cluster.restore(record.backup)
        return
    acts = {
        State.STOPPING: cluster.stop_old,
        State.DISCONNECTING: cluster.await_no_connection,
        State.MIGRATING: cluster.migrate,
        State.STARTING: cluster.start_new,
        State.SWITCHING: cluster.switch,
        State.WITHDRAWING: cluster.stop_new,
        State.RESTARTING: cluster.start_old,
    }
    acts[record.state]()


def _probe(cluster: Cluster) -> tuple[Event, str | None]:
    found = cluster.probe()
    if found.event is not Event.FAILED:
        return found.event, None
    lines = found.output.rstrip().split("\n")[-OUTPUT_LINES:]
    return found.event, "\n".join(["The new version does not start:", *lines])


def _end(record: Record, environment: str, permission: Permission) -> State:
    if record.state is State.REFUSED:
        missing = "a way to make a backup" if permission.downtime else "--allow-downtime"
        hint = (
            f"Run `lapwing deploy -e {environment} --allow-downtime` at a time when a short outage "
            "is acceptable."
        )
        if permission.downtime:
            hint = "Set `backup: true` on the stack's database, or pass --backup and --restore."
        raise DowntimeError(
            f"{record.release} migrates the database offline, which is an upgrade with a short "
            f"outage, and {missing} is missing. Nothing was changed.",
            hint=hint,
        )
    if record.state is State.OUTDATED:
        raise _outdated(record, environment)
    if record.state in (State.FAILED, State.ABORTED):
        first, _, detail = (record.reason or "aborted").partition("\n")
        raise UpgradeError(
            f"The upgrade to {record.release} was rolled back: {first}",
            hint="The previous version is serving, on its own schema.",
            detail=detail or None,
        )
    return record.state


def _outdated(record: Record, environment: str) -> UpgradeError:
    return UpgradeError(
        f"{record.release} reports unknown migrations in its database: an old version must not run "
        "with a newer schema. Nothing was changed.",
        hint=f"Deploy the version that migrated the database (`lapwing deploy -e {environment} "
        "--image SERVICE=IMAGE`), or restore the backup from before the migration first.",
    )


def _stuck(record: Record, environment: str) -> UpgradeError:
    backup = f" The backup is {record.backup}." if record.backup else ""
    return UpgradeError(
        f"The rollback from {record.release} stopped at `{record.state}`: {record.reason}{backup}",
        hint="Clients get 503 until it continues. Fix the problem, then run "
        f"`lapwing deploy -e {environment}`.",
    )
