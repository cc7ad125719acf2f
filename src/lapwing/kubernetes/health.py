"""The health of an object, as its controller reports it.

A status counts only once its controller has seen the newest specification (`observedGeneration`);
before that it describes the previous one. Sources: the API reference of each kind; for Rollout, the
phases that Argo Rollouts computes (`status.phase`, since 1.0).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lapwing.kubernetes.objects import Object, condition, is_terminating

State = Literal["ready", "progressing", "held", "failed"]


@dataclass(frozen=True, slots=True)
class Health:
    """The state of one object, and why in a few words. `ready` and `wanted` count pods."""

    state: State
    text: str = ""
    ready: int = 0
    wanted: int = 0
    may_pass: bool = False
    """A failure that may be transient: its controller has not seen everything yet."""


READY = Health("ready")


def judge(thing: Object) -> Health:
    """Return the health of an object; one of a kind without a notion of health is ready.

    One that is being deleted is in progress: what is applied to it now is deleted with it.
    """
    if is_terminating(thing):
        return Health("progressing", "is being deleted")
    by_kind = _BY_KIND.get(thing["kind"])
    return by_kind(thing) if by_kind is not None else READY


def wanted_replicas(spec: Mapping[str, Any]) -> int:
    """Return the number of replicas that a workload's specification asks for."""
    return int(spec["replicas"]) if spec.get("replicas") is not None else 1


def _pods(state: State, ready: int, wanted: int) -> Health:
    return Health(state, f"{ready} of {wanted} pods ready", ready, wanted)


def _deployment(thing: Object) -> Health:
    status, wanted = thing.get("status") or {}, wanted_replicas(thing["spec"])
    updated = status.get("updatedReplicas", 0)
    ready = min(status.get("availableReplicas", 0), updated)
    if not _observed(thing):
        return Health("progressing", "not seen by its controller yet", 0, wanted)
    if condition(thing, "Progressing").get("reason") == "ProgressDeadlineExceeded":
        return Health("failed", "did not become ready in time", ready, wanted)
    failure = condition(thing, "ReplicaFailure")
    if failure.get("status") == "True":
        # Its controller retries with a growing delay: a quota may have been raised since.
        text = str(failure.get("message", "pods are rejected"))
        return Health("failed", text, ready, wanted, may_pass=True)
    is_done = ready >= wanted and status.get("replicas", 0) <= updated
    return _pods("ready" if is_done else "progressing", ready, wanted)


def _stateful_set(thing: Object) -> Health:
    status, wanted = thing.get("status") or {}, wanted_replicas(thing["spec"])
    if not _observed(thing):
        return Health("progressing", "not seen by its controller yet", 0, wanted)
    ready = status.get("readyReplicas", 0)
    is_updated = (
        status.get("updateRevision") == status.get("currentRevision")
        or status.get("updatedReplicas", 0) >= wanted
    )
    return _pods("ready" if ready >= wanted and is_updated else "progressing", ready, wanted)


def _job(thing: Object) -> Health:
    failed = condition(thing, "Failed")
    if failed.get("status") == "True":
        return Health("failed", str(failed.get("message") or "failed"))
    if condition(thing, "Complete").get("status") == "True":
        return Health("ready", "completed")
    is_active = (thing.get("status") or {}).get("active")
    return Health("progressing", "running" if is_active else "waiting for its pod")


def _rollout(thing: Object) -> Health:
    spec, status = thing["spec"], thing.get("status") or {}
    wanted, ready = wanted_replicas(spec), int(status.get("availableReplicas") or 0)
    if str(status.get("observedGeneration")) != str(thing["metadata"].get("generation")):
        return Health("progressing", "not seen by Argo Rollouts yet", ready, wanted)
    phase, message = status.get("phase"), str(status.get("message") or "")
    if phase == "Healthy":
        return _pods("ready", ready, wanted)
    if phase == "Paused":
        # Just after a promotion the pause conditions are gone and the phase is still the old one.
        if not status.get("pauseConditions") and not spec.get("paused"):
            return Health("progressing", "resuming", ready, wanted)
        return Health("held", message, ready, wanted)
    if phase == "Degraded" and _is_switching_back(status):
        return Health("progressing", "returning traffic to the previous release", ready, wanted)
    if phase == "Degraded":
        is_early = message.startswith("InvalidSpec")
        return Health("failed", _failed_analysis(status) or message, ready, wanted, is_early)
    return Health("progressing", message, ready, wanted)


def _is_switching_back(status: Mapping[str, Any]) -> bool:
    """Return whether an aborted release still has the traffic.

    The controller marks a Rollout as aborted first and switches the Service then.
    """
    stable = status.get("stableRS")
    active = (status.get("blueGreen") or {}).get("activeSelector")
    return bool(status.get("abort") and stable and active and active != stable)


def _failed_analysis(status: Mapping[str, Any]) -> str:
    """Return the message of a failed analysis, which says more than "aborted"."""
    found = status.get("blueGreen") or {}
    for name, words in (
        ("prePromotionAnalysisRunStatus", "the smoke tests"),
        ("postPromotionAnalysisRunStatus", "the analysis of live traffic"),
    ):
        run = found.get(name) or {}
        if run.get("status") in ("Failed", "Error", "Inconclusive"):
            reason = f": {run['message']}" if run.get("message") else ""
            return f"{words} did not pass{reason}"
    return ""


def _volume_claim(thing: Object) -> Health:
    if (thing.get("status") or {}).get("phase") == "Lost":
        return Health("failed", "its volume is lost")
    return READY  # It may bind with its first pod, which reports a problem if it does not.


def _external_secret(thing: Object) -> Health:
    found = condition(thing, "Ready")
    if found.get("status") == "True":
        return READY
    if found.get("status") == "False":
        return Health("failed", str(found.get("message") or "the secret cannot be fetched"))
    return Health("progressing", "waiting for External Secrets")


def _application(thing: Object) -> Health:
    """Judge an application of Argo CD, which retries what failed."""
    status = thing.get("status") or {}
    health, sync = ((status.get(k) or {}).get("status") for k in ("health", "sync"))
    if (health, sync) == ("Healthy", "Synced"):
        return READY
    text = "; ".join(str(c.get("message")) for c in status.get("conditions") or ())
    return Health("progressing", text or f"{health or 'waiting for Argo CD'}, {sync or 'unknown'}")


def _definition(thing: Object) -> Health:
    is_ready = condition(thing, "Established").get("status") == "True"
    return READY if is_ready else Health("progressing", "is being set up")


def judge_autoscaler(thing: Object, workload: Object | None) -> Health:
    """Judge whether the workload of an autoscaler requests at least the minimum of pods.

    The status of the autoscaler is not read: it is up to 15 s late and, without metrics, stays
    that of a workload with 0 pods.
    """
    wanted = int(thing["spec"].get("minReplicas") or 1)
    count = wanted_replicas(workload["spec"]) if workload is not None else 1
    if count == 0:
        return Health("failed", "its workload is scaled to 0 pods", may_pass=True)
    return READY if count >= wanted else Health("progressing", f"not scaled to {wanted} pods yet")


def _namespace(thing: Object) -> Health:
    is_ready = (thing.get("status") or {}).get("phase") == "Active"
    return READY if is_ready else Health("progressing", "is being set up")


_BY_KIND: dict[str, Callable[[Object], Health]] = {
    "Deployment": _deployment,
    "StatefulSet": _stateful_set,
    "Job": _job,
    "Rollout": _rollout,
    "PersistentVolumeClaim": _volume_claim,
    "ExternalSecret": _external_secret,
    "CustomResourceDefinition": _definition,
    "Application": _application,
    "Namespace": _namespace,
}
"""An autoscaler is judged with its workload, by `judge_autoscaler`."""


def _observed(thing: Object) -> bool:
    seen = (thing.get("status") or {}).get("observedGeneration", 0)
    return bool(seen >= thing["metadata"].get("generation", 0))
