"""Read the newest backup and an interrupted restore of an environment on a machine."""

from __future__ import annotations

import itertools

import msgspec

from lapwing.agent import restores
from lapwing.agent.backup_manifest import Manifest
from lapwing.agent.backups import Backups
from lapwing.agent.restores import Restoring
from lapwing.desired.history import history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import BackupError
from lapwing.observed.status import BackupStatus, RestoreStatus, Status


def interrupted_restore(backups: Backups, repository: DesiredRepository) -> Restoring | None:
    """Return the restore that was interrupted, if nothing was deployed since it began."""
    found = restores.recorded(backups.data)
    if found is None:
        return None
    entries = history(repository, backups.document.stack, backups.document.environment)
    stopped = list(itertools.takewhile(lambda entry: not entry.services, entries))
    if any(entry.kind == "restore" for entry in stopped):
        entries = entries[len(stopped) :]
    return found if entries and found.head == entries[0].commit else None


def add_to_status(found: Status, backups: Backups, repository: DesiredRepository) -> Status:
    """Return a status with the newest backup and with an interrupted restore."""
    made, missing = list[Manifest](), None
    try:
        made = backups.known()
    except BackupError as error:
        missing = f"{error} {error.hint}"
    newest = made[0] if made else None
    backup = found.backup or (BackupStatus() if made or missing else None)
    if backup is not None:
        left_out = backups.left_out(newest)
        backup = msgspec.structs.replace(backup, left_out=left_out, missing=missing)
    if backup is not None and newest is not None:
        backup = msgspec.structs.replace(
            backup,
            newest=newest.id,
            created=newest.created,
            bytes=sum(p.bytes for p in newest.parts),
            count=len(made),
        )
    restore, problem = _restore(backups, repository)
    return msgspec.structs.replace(
        found, backup=backup, restore=restore, problem=problem or found.problem
    )


def _restore(
    backups: Backups, repository: DesiredRepository
) -> tuple[RestoreStatus | None, str | None]:
    """Return the restore in progress, or what to do about an interrupted one.

    It is looked for once more after the reading, during which a restore may begin.
    """
    problem = None
    for _ in range(2):
        if (found := restores.in_progress(backups.data)) is not None:
            return RestoreStatus(name=found.name, backup=found.backup), None
        problem = problem or _interrupted(backups, repository)
    return None, problem


def _interrupted(backups: Backups, repository: DesiredRepository) -> str | None:
    """Return what to do if a restore was interrupted while its environment was stopped."""
    stack, environment = backups.document.stack, backups.document.environment
    found = interrupted_restore(backups, repository)
    if found is None or found.head == repository.newest(stack, environment):
        return None
    again = f"lapwing restore {found.name} {found.backup} -e {environment}"
    return (
        f"A restore of {found.name} was interrupted, and {stack}/{environment} is stopped: run "
        f"`{again}` again, or `lapwing deploy -e {environment}`."
    )
