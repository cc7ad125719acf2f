"""What keeps pods from running, with a hint for each problem.

A controller reports only "3 of 5 ready"; the reason is in the status of the pods and, where there
are no pods at all, in events of the ReplicaSet. Some problems are transient (a first pull that
times out), so each says whether waiting may help.

Source: Kubernetes documentation, "Pod Lifecycle", "Images", and the reasons that the kubelet sets
on waiting containers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lapwing.kubernetes.objects import Object, is_terminating

PULL_REASONS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
START_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
CRASH_LOOP_RESTARTS = 3
"""Restarts after which a container that is not ready is in a crash loop, whatever its reason."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem.

    `final` if waiting does not help. `container` names the container whose log says more;
    `previous` whether it is the log of its previous run.
    """

    text: str
    hint: str | None = None
    final: bool = False
    pod: str | None = None
    container: str | None = None
    previous: bool = False


def of_pods(pods: Iterable[Object]) -> list[Problem]:
    """Return the problems of pods, final ones first, each of them once."""
    found: dict[str, Problem] = {}
    for pod in pods:
        for problem in _of_pod(pod):
            found.setdefault(problem.text, problem)
    return sorted(found.values(), key=lambda p: not p.final)


def of_events(events: Iterable[Object]) -> list[Problem]:
    """Return the problems that controllers report in events: rejected pods, exceeded quotas."""
    found: dict[str, Problem] = {}
    for event in events:
        if event.get("type") == "Warning" and event.get("reason") == "FailedCreate":
            problem = of_rejection(str(event.get("message", "")))
            found.setdefault(problem.hint or problem.text, problem)
    return list(found.values())


def of_rejection(message: str) -> Problem:
    """Return the problem of pods that a controller may not create."""
    _, _, reason = message.partition(" is forbidden: ")
    text = f"pods are rejected: {reason or message}"
    if "exceeded quota" in text:
        hint = "Ask for a larger quota, or lower `resources` and `replicas` in the stack file."
        return Problem(text, hint, final=True)
    if "violates PodSecurity" in text:
        hint = "The namespace admits restricted pods only; see docs/how-to/kubernetes.md."
        return Problem(text, hint, final=True)
    return Problem(text)


def of_failure(text: str) -> Problem:
    """Return the problem behind a failure that may be transient."""
    return of_rejection(text) if " is forbidden: " in text else Problem(text, final=True)


def _of_pod(pod: Object) -> list[Problem]:
    status, name = pod.get("status") or {}, str(pod["metadata"]["name"])
    if is_terminating(pod):
        return []
    if status.get("phase") == "Failed" and not status.get("containerStatuses"):
        return [Problem(f"pod {name} failed: {status.get('message') or status.get('reason')}")]
    containers = (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    )
    found = [p for c in containers if (p := _of_container(name, c)) is not None]
    return found or _unscheduled(status)


def _of_container(pod: str, status: Mapping[str, Any]) -> Problem | None:
    name, state = str(status.get("name")), status.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message") or "").strip()
    because = f"{reason}: {message}" if message else reason
    if reason in PULL_REASONS:
        return Problem(
            f"{name}: image {status.get('image')} cannot be pulled ({because})",
            "Check that the image exists and that the cluster may pull it. On kind, "
            "`kind load docker-image IMAGE` loads a local one.",
            final=reason != "ErrImagePull",
            pod=pod,
        )
    if reason in START_REASONS:
        return Problem(f"{name}: container cannot start ({because})", final=True, pod=pod)
    restarts = int(status.get("restartCount") or 0)
    if reason == "CrashLoopBackOff" or (
        restarts >= CRASH_LOOP_RESTARTS and not status.get("ready")
    ):
        last = (status.get("lastState") or {}).get("terminated") or ended
        return Problem(
            f"{name}: crash loop ({_exit_reason(last)}, {restarts} restarts)",
            final=True,
            pod=pod,
            container=name,
            previous=not ended,
        )
    if ended and ended.get("exitCode", 0) != 0:
        return Problem(f"{name}: terminated ({_exit_reason(ended)})", pod=pod, container=name)
    return None


def _exit_reason(ended: Mapping[str, Any]) -> str:
    if ended.get("reason") == "OOMKilled":
        return "out of memory"
    return f"exit status {ended['exitCode']}" if "exitCode" in ended else "unknown exit status"


def _unscheduled(status: Mapping[str, Any]) -> list[Problem]:
    for condition in status.get("conditions") or ():
        if condition.get("reason") == "Unschedulable":
            reason = str(condition.get("message")).rstrip(".")
            text = f"pod cannot be scheduled: {reason}"
            hint = "Wait if the cluster is adding a node; else lower `resources`, or add nodes."
            if "PersistentVolumeClaim" in text:
                hint = "Its volume is not provisioned: check for a default StorageClass with "
                hint += "`kubectl get storageclass`."
            return [Problem(text, hint)]
    return []
