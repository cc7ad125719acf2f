"""What keeps pods from running, with a hint for each problem.

A controller reports only "3 of 5 ready"; the reason is in the status of the pods and, where there
are no pods at all, in events of the ReplicaSet. Why a volume is not ready is only in events of its
claim or of the pod. Some problems are transient (a first pull that times out), so each says whether
waiting may help.

Sources: Kubernetes documentation, "Pod Lifecycle", "Images", and the reasons that the kubelet sets
on waiting containers; of events, pkg/controller/volume/events and pkg/kubelet/events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lapwing.kubernetes.objects import Object, is_terminating

PULL_REASONS = ("ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull")
START_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
VOLUME_REASONS = {
    "ProvisioningFailed": "volume {name} is not provisioned",
    "FailedBinding": "volume {name} is not provisioned",
    "FailedAttachVolume": "a volume of pod {name} cannot be attached",
    "FailedMount": "a volume of pod {name} cannot be mounted",
}
"""The reasons of events about volumes that are not ready, in words."""
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


def of_events(events: Iterable[Object], workloads: Iterable[str]) -> list[Problem]:
    """Return the problems that controllers report in events: rejected pods, exceeded quotas.

    The events are about workloads with these names, or about ReplicaSets that are named after them.
    """
    names, found = tuple(workloads), dict[str, Problem]()
    for event in events:
        about = str(event["involvedObject"].get("name", ""))
        if event.get("reason") == "FailedCreate" and about.startswith(names):
            problem = of_rejection(str(event.get("message", "")))
            found.setdefault(problem.hint or problem.text, problem)
    return list(found.values())


def of_volumes(
    pods: Iterable[Object], claims: Iterable[Object], events: Iterable[Object]
) -> list[Problem]:
    """Return why pods of a namespace wait for a volume.

    Events about solved problems are ignored: those of a claim that is bound, and those of a pod
    that has a newer event.
    """
    waiting = [p for p in pods if not _has_started(p)]
    used = {name for pod in waiting for name in _claims_of(pod)}
    unbound = (c for c in claims if (c.get("status") or {}).get("phase") != "Bound")
    wanted = {p["metadata"]["uid"]: p for p in waiting}
    wanted |= {c["metadata"]["uid"]: c for c in unbound if c["metadata"]["name"] in used}
    newest: dict[str, Object] = {}
    for event in sorted(events, key=_time):
        about = event["involvedObject"]
        # A claim also has events that its volume is being provisioned: they are not the reason.
        if about.get("kind") == "Pod" or event.get("reason") in VOLUME_REASONS:
            newest[str(about.get("uid"))] = event
    return [
        _of_volume(newest[uid])
        for uid in wanted
        if uid in newest and newest[uid].get("reason") in VOLUME_REASONS
    ]


def _of_volume(event: Object) -> Problem:
    about, message = event["involvedObject"], " ".join(str(event.get("message", "")).split())
    text = VOLUME_REASONS[event["reason"]].format(name=about["name"])
    hint = "Check its storage class, or the default one, with `kubectl get storageclass`."
    if about.get("kind") == "Pod":
        hint = f"Run `kubectl describe pod {about['name']} -n {about.get('namespace')}`."
    return Problem(f"{text}: {message.rstrip('.')}", hint)


def _has_started(pod: Object) -> bool:
    """Return whether a container of a pod has run, for which all volumes have to be mounted."""
    status = pod.get("status") or {}
    every = (
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    )
    has_run = any(c.get("restartCount") or "waiting" not in (c.get("state") or {}) for c in every)
    return has_run or is_terminating(pod)


def _claims_of(pod: Object) -> Iterator[str]:
    for volume in pod["spec"].get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            yield str(volume["persistentVolumeClaim"]["claimName"])
        elif "ephemeral" in volume:
            yield f"{pod['metadata']['name']}-{volume['name']}"


def _time(event: Object) -> str:
    series = event.get("series") or {}
    last = event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime")
    return str(last or event["metadata"].get("creationTimestamp"))


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
            elif 'persistentvolumeclaim "' in text and "not found" in text:
                hint = "Create this PersistentVolumeClaim in the namespace of the environment."
            return [Problem(text, hint)]
    return []
