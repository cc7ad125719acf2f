"""Problem: what keeps pods from running, in words, with what to do. Pure.

A controller says only "3 of 5 ready"; why not is in the status of the pods and, where there are no
pods at all, in events of the ReplicaSet. Some troubles pass by themselves (a first pull that times
out), so each says whether waiting may still help. Source: Kubernetes documentation, "Pod
Lifecycle", "Images", and the reasons that the kubelet sets on waiting containers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lapwing.kubernetes.objects import Object

PULL = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
SETUP = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
CRASHES = 3
"""Restarts after which a container that is still not ready crash-loops, whatever it is called."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `final` if waiting does not help. `container` names where the last
    lines of the log are, if they tell more; `previous` if those of the run before."""

    text: str
    hint: str | None = None
    final: bool = False
    pod: str | None = None
    container: str | None = None
    previous: bool = False


def of_pods(pods: Iterable[Object]) -> list[Problem]:
    """What is wrong with pods, the final ones first; each is told once, however many have it."""
    found: dict[str, Problem] = {}
    for pod in pods:
        for trouble in _of_pod(pod):
            found.setdefault(trouble.text, trouble)
    return sorted(found.values(), key=lambda t: not t.final)


def of_events(events: Iterable[Object]) -> list[Problem]:
    """What controllers say they may not do: a quota that is used up, a pod that is refused."""
    found: dict[str, Problem] = {}
    for event in events:
        if event.get("type") != "Warning" or event.get("reason") != "FailedCreate":
            continue
        trouble = of_refusal(str(event.get("message", "")))
        found.setdefault(trouble.hint or trouble.text, trouble)
    return list(found.values())


def of_refusal(message: str) -> Problem:
    """What a controller says of pods that it may not create."""
    _, _, why = message.partition(" is forbidden: ")
    text = f"pods are refused: {why or message}"
    if "exceeded quota" in text:
        hint = "Ask for a larger quota, or lower `resources` and `replicas` in the stack file."
        return Problem(text, hint, final=True)
    if "violates PodSecurity" in text:
        hint = "The namespace admits restricted pods only; see docs/how-to/kubernetes.md."
        return Problem(text, hint, final=True)
    return Problem(text)


def of_failure(text: str) -> Problem:
    """What the failure of an object means that may be over in a moment."""
    return of_refusal(text) if " is forbidden: " in text else Problem(text, final=True)


def _of_pod(pod: Object) -> list[Problem]:
    status, name = pod.get("status") or {}, str(pod["metadata"]["name"])
    if pod["metadata"].get("deletionTimestamp"):
        return []
    if status.get("phase") == "Failed" and not status.get("containerStatuses"):
        return [Problem(f"pod {name} failed: {status.get('message') or status.get('reason')}")]
    found = []
    for each in (
        *_statuses(status, "initContainerStatuses"),
        *_statuses(status, "containerStatuses"),
    ):
        trouble = _of_container(name, each)
        if trouble is not None:
            found.append(trouble)
    return found or _unscheduled(status)


def _of_container(pod: str, status: Mapping[str, Any]) -> Problem | None:
    name, state = str(status.get("name")), status.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message") or "").strip()
    told = f": {message}" if message else ""
    if reason in PULL:
        return Problem(
            f"{name}: the image {status.get('image')} cannot be pulled ({reason}{told})",
            "Is the image there, and may the cluster read it? On kind, `kind load docker-image` "
            "brings a local one in.",
            final=reason != "ErrImagePull",
            pod=pod,
        )
    if reason in SETUP:
        return Problem(f"{name}: the container cannot start ({reason}{told})", final=True, pod=pod)
    restarts = int(status.get("restartCount") or 0)
    if reason == "CrashLoopBackOff" or (restarts >= CRASHES and not status.get("ready")):
        last = (status.get("lastState") or {}).get("terminated") or ended
        return Problem(
            f"{name}: it crashes again and again ({_ending(last)}, {restarts} restarts)",
            final=True,
            pod=pod,
            container=name,
            previous=not ended,
        )
    if ended and ended.get("exitCode", 0) != 0:
        return Problem(f"{name}: it ended ({_ending(ended)})", pod=pod, container=name)
    return None


def _ending(ended: Mapping[str, Any]) -> str:
    if ended.get("reason") == "OOMKilled":
        return "out of memory"
    return f"exit status {ended['exitCode']}" if "exitCode" in ended else "no exit status known"


def _unscheduled(status: Mapping[str, Any]) -> list[Problem]:
    for condition in status.get("conditions") or ():
        if condition.get("reason") == "Unschedulable":
            text = f"no node takes a pod: {condition.get('message')}"
            hint = "The cluster may be adding a node; else lower `resources`, or add nodes."
            if "PersistentVolumeClaim" in text:
                hint = "Nothing makes its volume: has the cluster a default StorageClass?"
            return [Problem(text, hint)]
    return []


def _statuses(status: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    return list(status.get(key) or ())
