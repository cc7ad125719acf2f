"""Promote and abort the Rollouts of an environment, as the kubectl plugin of Argo Rollouts does.

Both change the status of the Rollout only, not the desired state: after an abort the active slot
keeps serving, and the commit that takes the new release back is the caller's.
"""

from __future__ import annotations

from lapwing.errors import StateError
from lapwing.kubernetes import health
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference
from lapwing.kubernetes.pods import ROLLOUT


def promote(api: ApiClient, scope: Scope) -> list[Reference]:
    """Resume every paused Rollout and return them. Raises StateError if there is no paused one."""
    held = _in_state(api, scope, "held")
    if not held:
        raise StateError(
            "No deployment in progress to promote.",
            hint=f"`lapwing deploy -e {scope.environment} --hold` starts one that pauses before "
            "the switch.",
        )
    for rollout in held:
        reference = Reference.of(rollout)
        if (rollout.get("status") or {}).get("pauseConditions"):
            resume(api, reference)
        if rollout["spec"].get("paused"):
            api.patch(reference, {"spec": {"paused": False}})
    return [Reference.of(r) for r in held]


def resume(api: ApiClient, rollout: Reference) -> None:
    """Resume a Rollout that Argo Rollouts has paused before the switch."""
    api.patch(rollout, {"status": {"pauseConditions": None}}, subresource="status")


def abort(api: ApiClient, scope: Scope) -> list[Reference]:
    """Abort every Rollout in progress and return them; the active slots keep serving.

    Raises StateError if there is no Rollout in progress.
    """
    in_progress = _in_state(api, scope, "held", "progressing")
    if not in_progress:
        raise StateError(
            "No deployment in progress to abort.",
            hint=f"`lapwing rollback -e {scope.environment}` restores the previous release after a "
            "successful deployment.",
        )
    for rollout in in_progress:
        api.patch(Reference.of(rollout), {"status": {"abort": True}}, subresource="status")
    return [Reference.of(r) for r in in_progress]


def _in_state(api: ApiClient, scope: Scope, *states: str) -> list[Object]:
    found = api.list(*ROLLOUT, scope.namespace, scope.selector, missing_kind_ok=True)
    return [r for r in found if health.judge(r).state in states]
