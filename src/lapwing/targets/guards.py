"""Guards: what has to hold before a verb changes an environment, for every verb of every target.

    check            the planned change: pauses, offline migrations      -> CheckedChange
    commit           only takes a CheckedChange; refuses a conflict
    confirm_context  a cluster that is not local is changed after a question only
    exclusive        one command at a time changes an environment on a cluster
    Applier.examine  no object of the change is unmanaged, and the cluster has every kind

A target plans a change, has it checked, and commits the result. Because `commit` accepts nothing
else than what `check` returned, no target can leave a guard out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lapwing.desired.repository import DesiredRepository
from lapwing.errors import ContextError, UsageError
from lapwing.plan.model import Document
from lapwing.targets.base import ClusterOptions, Reporter, Verb
from lapwing.targets.planned import PlannedChange

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from lapwing.kubernetes.applyset import Scope
    from lapwing.kubernetes.client import ApiClient
    from lapwing.stack.load import LoadedStack


@dataclass(frozen=True, slots=True)
class Rules:
    """What the guards have to know of an environment and of what a user allows.

    `can_hold` is whether a deployment can be paused before the switch. `allows_migration` is
    whether new images may bring an offline migration: a user allowed downtime, or the target
    checks the new version itself before it changes anything.
    """

    can_hold: bool = True
    allows_migration: bool = False


@dataclass(frozen=True, slots=True)
class CheckedChange:
    """A planned change that every guard has approved. Only `check` makes one."""

    plan: PlannedChange


def check(
    plan: PlannedChange, verb: Verb, loaded: LoadedStack | None, rules: Rules = Rules()
) -> CheckedChange:
    """Approve a planned change; `loaded` is omitted where no image can change.

    Raises UsageError: nothing was changed.
    """
    environment = plan.document.environment
    if plan.document.deployment.hold and not rules.can_hold:
        raise UsageError(
            f"A deployment in {environment!r} cannot be paused: without Argo Rollouts, a "
            "Deployment is updated pod by pod.",
            hint="Install Argo Rollouts in the cluster and add `rollouts: true` to the "
            "environment. Nothing was changed.",
        )
    if loaded is not None:
        _check_offline_migration(loaded, plan, verb, rules)
    return CheckedChange(plan)


def commit(repository: DesiredRepository, checked: CheckedChange) -> str:
    """Commit an approved change. Raises ConflictError if another commit came first."""
    plan = checked.plan
    return repository.commit(plan.document, expected=plan.expected, files=plan.files)


def _check_offline_migration(
    loaded: LoadedStack, plan: PlannedChange, verb: Verb, rules: Rules
) -> None:
    for name, old, new, image in _offline_changes(loaded, plan.before, plan.document):
        if verb == "rollback":
            raise UsageError(
                f"{name} {old} may have migrated its database, and {new} must not run with a "
                "newer schema.",
                hint="Restore the backup from before the upgrade, then run `lapwing deploy -e "
                f"{loaded.environment} --image {name}={image} --allow-downtime`. Nothing was "
                "changed.",
            )
        if verb in ("deploy", "up") and not rules.allows_migration:
            raise UsageError(
                f"{name} {old} -> {new} may migrate its database, and its migrations are offline: "
                "no replica may be connected during the migration.",
                hint="Back up the database, scale the service to zero, then run `lapwing deploy -e "
                f"{loaded.environment} --allow-downtime`. Nothing was committed.",
            )


def _offline_changes(
    loaded: LoadedStack, before: Document | None, after: Document
) -> list[tuple[str, str, str, str]]:
    """List the services with an offline migration whose image changes.

    Each is its name, the old and the new release, and the new image.
    """
    found = []
    for name, service in loaded.stack.services.items():
        if service.migrate is None or service.migrate.mode != "offline":
            continue
        old = before.services.get(name) if before else None
        new = after.services.get(name)
        if old is not None and new is not None and old.image != new.image:
            found.append((name, old.release, new.release, str(new.image)))
    return found


def confirm_context(
    api: ApiClient, verb: Verb, scope: Scope, options: ClusterOptions, reporter: Reporter
) -> None:
    """Ask before a cluster is changed that is not local. Raises ContextError without a yes."""
    access = api.access
    if options.yes or access.local:
        return
    question = f"Run {verb} in {scope.namespace} on {access.context} ({access.server})?"
    if not reporter.confirm(question):
        raise ContextError(
            f"Context {access.context!r} is not a local cluster; nothing was changed.",
            hint="Add `--yes` to change it, or name another context with `--context NAME`.",
        )


def confirm_removal(question: str, options: ClusterOptions, reporter: Reporter) -> None:
    """Ask before data is removed from any cluster. Raises UsageError without a yes."""
    if not options.yes and not reporter.confirm(question):
        raise UsageError("Nothing was removed.", hint="Add `--yes` to remove it.")


def exclusive(folder: Path, ref: object) -> AbstractContextManager[None]:
    """Hold the lock of an environment on a cluster. Raises ConflictError if it is held."""
    from lapwing.kubernetes import local_state

    return local_state.environment_lock(folder, str(ref))
