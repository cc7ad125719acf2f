"""What is told of an environment that Lapwing applies to a cluster: what the cluster runs, and what
is noted on this machine of its deployments. The notes know what the cluster does not: that all of
it was stopped on purpose, or that a deployment came to no end.
"""

from __future__ import annotations

import msgspec

from lapwing.desired import history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import UsageError
from lapwing.kubernetes import local_state
from lapwing.kubernetes.applyset import Scope
from lapwing.observed.status import Status
from lapwing.settings import Settings
from lapwing.targets import planned as change
from lapwing.targets.planned import Where

_FATE = {history.IN_PROGRESS: "was interrupted", "failed": "failed"}


def forget(settings: Settings, where: Where, actor: str) -> str | None:
    """Want nothing any more of an environment whose cluster is gone; returns the commit."""
    repository = DesiredRepository(settings.desired)
    try:
        act = change.down(repository, where, actor)
    except UsageError:
        return None
    commit = repository.commit(act.document, expected=act.expected, files={})
    repository.note(commit, "succeeded")
    return commit


def corrected(
    settings: Settings,
    scope: Scope,
    found: Status | None,
    url: str,
) -> Status | None:
    """The status of a cluster with what is noted of its deployments on this machine: that all of it
    was stopped, or that the last one came to no end."""
    where = (scope.stack, scope.environment)
    entries = history.history(DesiredRepository(settings.desired), *where, 1, followed=True)
    if not entries:
        return found
    newest = entries[0]
    if found is None:
        return Status(stack=scope.stack, environment=scope.environment, url=url)
    is_held = found.rollout is not None and found.rollout.state == "holding"
    if newest.outcome not in (history.IN_PROGRESS, "failed") or is_held:
        return found
    problem = f"deployment {newest.commit[:12]} {_FATE[newest.outcome]}"
    if newest.outcome == history.IN_PROGRESS and local_state.is_locked(
        settings.environment(*where)
    ):
        return found
    verb = newest.kind if newest.kind in ("down", "rollback") else "up"
    hint = f"`lapwing {verb} -e {scope.environment}` goes on"
    return msgspec.structs.replace(found, problem=f"{problem}; {hint}.")
