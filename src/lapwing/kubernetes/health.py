"""Health: whether an object of the cluster is what it should be, by what its controller says. Pure.

A status counts only when its controller has seen the newest specification (`observedGeneration`);
before that it speaks of the one before. Sources: the API reference of each kind; for Rollout, the
phases that Argo Rollouts computes (`status.phase`, since 1.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lapwing.kubernetes.objects import Object

State = Literal["ready", "progressing", "held", "failed"]


@dataclass(frozen=True, slots=True)
class Health:
    """The state of one object, and why in a few words. `ready` and `wanted` count pods."""

    state: State
    text: str = ""
    ready: int = 0
    wanted: int = 0
    may_pass: bool = False
    """A failure that may be over in a moment: a controller has not seen all yet."""


READY = Health("ready")


def judge(thing: Object) -> Health:
    """The health of any object; one of a kind that has no notion of it is ready when it is there.
    One that is going away is in progress: what is applied to it now is lost with it."""
    if thing["metadata"].get("deletionTimestamp"):
        return Health("progressing", "is being deleted")
    by_kind = _JUDGES.get(thing["kind"])
    return by_kind(thing) if by_kind is not None else READY


def _deployment(thing: Object) -> Health:
    spec, status = thing["spec"], thing.get("status") or {}
    wanted = replicas_wanted(spec)
    ready = min(status.get("availableReplicas", 0), status.get("updatedReplicas", 0))
    if not _observed(thing):
        return Health("progressing", "not seen by its controller yet", 0, wanted)
    if _condition(status, "Progressing").get("reason") == "ProgressDeadlineExceeded":
        return Health("failed", "did not become ready in time", ready, wanted)
    refused = _condition(status, "ReplicaFailure")
    if refused.get("status") == "True":
        # Its controller tries again, ever more rarely: a quota may have been raised since.
        text = str(refused.get("message", "pods are refused"))
        return Health("failed", text, ready, wanted, may_pass=True)
    left = status.get("replicas", 0) - status.get("updatedReplicas", 0)
    if ready < wanted or left > 0:
        return Health("progressing", f"{ready} of {wanted} pods ready", ready, wanted)
    return Health("ready", f"{ready} of {wanted} pods ready", ready, wanted)


def _stateful_set(thing: Object) -> Health:
    status = thing.get("status") or {}
    wanted = replicas_wanted(thing["spec"])
    ready = status.get("readyReplicas", 0)
    if not _observed(thing):
        return Health("progressing", "not seen by its controller yet", 0, wanted)
    new = status.get("updateRevision") == status.get("currentRevision")
    done = ready >= wanted and (new or status.get("updatedReplicas", 0) >= wanted)
    return Health(
        "ready" if done else "progressing", f"{ready} of {wanted} pods ready", ready, wanted
    )


def _job(thing: Object) -> Health:
    status = thing.get("status") or {}
    failed = _condition(status, "Failed")
    if failed.get("status") == "True":
        return Health("failed", str(failed.get("message") or "it failed"))
    if _condition(status, "Complete").get("status") == "True":
        return Health("ready", "completed")
    return Health("progressing", "runs" if status.get("active") else "waits for its pod")


def _rollout(thing: Object) -> Health:
    spec, status = thing["spec"], thing.get("status") or {}
    wanted, ready = replicas_wanted(spec), int(status.get("availableReplicas") or 0)
    if str(status.get("observedGeneration")) != str(thing["metadata"].get("generation")):
        return Health("progressing", "not seen by Argo Rollouts yet", ready, wanted)
    phase, message = status.get("phase"), str(status.get("message") or "")
    if phase == "Healthy":
        return Health("ready", f"{ready} of {wanted} pods ready", ready, wanted)
    if phase == "Paused":
        # While a person's "go on" is under way the pause conditions are gone, and the phase is old.
        if not status.get("pauseConditions") and not spec.get("paused"):
            return Health("progressing", "goes on", ready, wanted)
        return Health("held", message, ready, wanted)
    if phase == "Degraded":
        early = message.startswith("InvalidSpec")
        return Health("failed", _why(status) or message, ready, wanted, may_pass=early)
    return Health("progressing", message, ready, wanted)


def _why(status: Mapping[str, Any]) -> str:
    """What an analysis said, where one has failed: more to the point than "aborted"."""
    found = status.get("blueGreen") or {}
    for name, words in (
        ("prePromotionAnalysisRunStatus", "the smoke tests"),
        ("postPromotionAnalysisRunStatus", "the analysis of live traffic"),
    ):
        run = found.get(name) or {}
        if run.get("status") in ("Failed", "Error", "Inconclusive"):
            told = f": {run['message']}" if run.get("message") else ""
            return f"{words} did not pass{told}"
    return ""


def _claim(thing: Object) -> Health:
    phase = (thing.get("status") or {}).get("phase")
    if phase == "Lost":
        return Health("failed", "its volume is lost")
    return READY  # A claim may wait for its first pod; the pod tells if it waits in vain.


def _external_secret(thing: Object) -> Health:
    found = _condition(thing.get("status") or {}, "Ready")
    if found.get("status") == "True":
        return READY
    if found.get("status") == "False":
        return Health("failed", str(found.get("message") or "the secret cannot be fetched"))
    return Health("progressing", "waits for External Secrets")


def _definition(thing: Object) -> Health:
    found = _condition(thing.get("status") or {}, "Established")
    return READY if found.get("status") == "True" else Health("progressing", "is being set up")


def _namespace(thing: Object) -> Health:
    phase = (thing.get("status") or {}).get("phase")
    return READY if phase == "Active" else Health("progressing", "is being set up")


_JUDGES: dict[str, Callable[[Object], Health]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "Job": _job,
    "Rollout": _rollout,
    "PersistentVolumeClaim": _claim,
    "ExternalSecret": _external_secret,
    "CustomResourceDefinition": _definition,
    "Namespace": _namespace,
}


def replicas_wanted(spec: Mapping[str, Any]) -> int:
    return int(spec["replicas"]) if spec.get("replicas") is not None else 1


def _observed(thing: Object) -> bool:
    seen = (thing.get("status") or {}).get("observedGeneration", 0)
    return bool(seen >= thing["metadata"].get("generation", 0))


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next(
        (c for c in status.get("conditions") or () if c.get("type") == kind), {}
    )
    return found
