"""Looking at an environment in a cluster, and acting on its rollouts.

Promoting and aborting is said to Argo Rollouts as its own kubectl plugin says it: by the status of
the Rollout. What the desired state says is not changed here: an abort leaves the old slot serving,
and the commit that takes the new release back is the caller's.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from lapwing.errors import KindMissingError, UsageError
from lapwing.kubernetes import apply, applyset, health, status
from lapwing.kubernetes.apply import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference
from lapwing.kubernetes.status import Found
from lapwing.observed.status import Status

ROLLOUT = ("argoproj.io/v1alpha1", "Rollout")
LEAVES = 120.0
"""Seconds that pods may take to end when everything is removed."""
WORKLOADS = (ROLLOUT, ("apps/v1", "Deployment"), ("apps/v1", "StatefulSet"), ("batch/v1", "Job"))


def rollouts(api: ApiClient, scope: Scope) -> list[Object]:
    """The Rollouts of an environment; none where the cluster has no Argo Rollouts."""
    try:
        return api.list(*ROLLOUT, scope.namespace, scope.selector)
    except KindMissingError:
        return []


def look(api: ApiClient, scope: Scope, url: str) -> Status | None:
    """The status of an environment; None if nothing of it is in the cluster."""
    record = api.get(scope.applyset)
    if record is None:
        return None
    found = Found(
        workloads=[w for k in WORKLOADS for w in _listed(api, scope, *k)],
        replica_sets=api.list("apps/v1", "ReplicaSet", scope.namespace),
        pods=api.list("v1", "Pod", scope.namespace),
        commit=str((record.get("data") or {}).get("commit") or "") or None,
    )
    return status.status(scope.stack, scope.environment, url, found, time.time())


def promote(api: ApiClient, scope: Scope) -> list[Reference]:
    """Let every held rollout go on; returns them. Raises UsageError if none is held."""
    held = [r for r in rollouts(api, scope) if health.judge(r).state == "held"]
    if not held:
        raise UsageError(
            "There is no deployment in flight to promote.",
            hint="`lapwing deploy --hold` makes one that waits.",
        )
    for rollout in held:
        if (rollout.get("status") or {}).get("pauseConditions"):
            change = {"status": {"pauseConditions": None}}
            api.patch(Reference.of(rollout), change, subresource="status")
        if rollout["spec"].get("paused"):
            api.patch(Reference.of(rollout), {"spec": {"paused": False}})
    return [Reference.of(r) for r in held]


def abort(api: ApiClient, scope: Scope) -> list[Reference]:
    """Stop every rollout in flight: the slot that served before goes on serving. Returns them.

    Raises UsageError if none is in flight.
    """
    open_ = [r for r in rollouts(api, scope) if health.judge(r).state in ("held", "progressing")]
    if not open_:
        raise UsageError(
            "There is no deployment in flight to abort.",
            hint="`lapwing rollback` goes back from one that has succeeded.",
        )
    for rollout in open_:
        api.patch(Reference.of(rollout), {"status": {"abort": True}}, subresource="status")
    return [Reference.of(r) for r in open_]


def down(
    api: ApiClient, scope: Scope, tell: Callable[[str], None] = lambda _: None
) -> list[Reference]:
    """Remove everything of an environment but its data; returns what went."""
    gone = apply.prune(api, scope, applyset.references(api.get(scope.applyset)), (), tell)
    api.delete(scope.applyset)
    return gone


def wait_until_gone(
    api: ApiClient, scope: Scope, tell: Callable[[str], None] = lambda _: None
) -> None:
    """Wait until no pod of an environment is left: what comes next must not meet them. After
    `LEAVES` seconds it is told that some are left."""
    until, told = time.monotonic() + LEAVES, -1
    while time.monotonic() < until:
        left = len(api.list("v1", "Pod", scope.namespace, scope.selector))
        if not left:
            return
        if left != told:
            tell(f"{left} pods are ending")
            told = left
        time.sleep(0.2)
    tell("some pods have not ended yet")


def has_unmanaged_objects(api: ApiClient, scope: Scope) -> bool:
    """Whether the namespace of an environment holds anything that others made."""
    kinds = (("v1", "Pod"), ("v1", "PersistentVolumeClaim"), ("v1", "Secret"), ("v1", "Service"),
             ("v1", "ConfigMap"), *WORKLOADS)  # fmt: skip
    for version, kind in kinds:
        try:
            found = api.list(version, kind, scope.namespace)
        except KindMissingError:
            continue
        for thing in found:
            metadata = thing["metadata"]
            is_ours = applyset.is_managed(thing, scope.stack, scope.environment)
            is_going = metadata.get("deletionTimestamp")
            if not is_ours and not is_going and metadata["name"] != "kube-root-ca.crt":
                return True
    return False


def _listed(api: ApiClient, scope: Scope, version: str, kind: str) -> list[Object]:
    try:
        return api.list(version, kind, scope.namespace, scope.selector)
    except KindMissingError:
        return []
