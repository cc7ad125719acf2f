"""Read the newest backup and an interrupted restore of an environment on a machine."""

from __future__ import annotations

import msgspec

from lapwing.agent.backups import Backups
from lapwing.agent.restores import Restores, Restoring
from lapwing.desired.history import history
from lapwing.desired.repository import DesiredRepository
from lapwing.observed.status import BackupStatus, Status


def interrupted_restore(backups: Backups, repository: DesiredRepository) -> Restoring | None:
    """Return the restore that was interrupted, if nothing was deployed since it began."""
    found = Restores(backups).recorded()
    if found is None:
        return None
    newest = history(repository, backups.document.stack, backups.document.environment, 2)
    if newest and newest[0].kind != "down":  # The environment was not stopped.
        newest = newest[:1]
    return found if found.head in [entry.commit for entry in newest] else None


def add_to_status(found: Status, backups: Backups, repository: DesiredRepository) -> Status:
    """Return a status with the newest backup and with an interrupted restore."""
    made = backups.list()
    newest = made[0] if made else None
    backup = found.backup or (BackupStatus() if made else None)
    if backup is not None:
        backup = msgspec.structs.replace(backup, left_out=backups.left_out(newest))
    if backup is not None and newest is not None:
        backup = msgspec.structs.replace(
            backup,
            newest=newest.id,
            created=newest.created,
            bytes=sum(p.bytes for p in newest.parts),
            count=len(made),
        )
    problem = _interrupted(backups, repository) or found.problem
    return msgspec.structs.replace(found, backup=backup, problem=problem)


def _interrupted(backups: Backups, repository: DesiredRepository) -> str | None:
    """Return what to do if a restore was interrupted while its environment was stopped."""
    stack, environment = backups.document.stack, backups.document.environment
    if Restores(backups).is_in_progress:
        return None
    found = interrupted_restore(backups, repository)
    if found is None or found.head == repository.newest(stack, environment):
        return None
    again = f"lapwing restore {found.name} {found.backup} -e {environment}"
    return (
        f"A restore of {found.name} was interrupted, and {stack}/{environment} is stopped: run "
        f"`{again}` again, or `lapwing deploy -e {environment}`."
    )
