"""What a cluster runs of an environment, in the words of `lapwing status`. Pure.

A service is a Rollout (blue-green, by Argo Rollouts) or a Deployment. The slots of a Rollout are
its ReplicaSets: odd revisions are blue, even ones green, so two that follow each other always
differ, also after a rollback, which makes the older one the newest revision again. Which of them
gets traffic is read from the status of the Rollout: it follows the selector of the active Service.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lapwing.kubernetes import health
from lapwing.kubernetes.health import Health
from lapwing.kubernetes.objects import Object
from lapwing.observed.status import (
    Phase,
    ResourceStatus,
    RolloutStatus,
    ServiceStatus,
    SlotStatus,
    Status,
)
from lapwing.plan.names import COMPONENT, NAME, VERSION

HASH = "rollouts-pod-template-hash"
DEADLINE = "scale-down-deadline"
REVISIONS = ("rollout.argoproj.io/revision", "deployment.kubernetes.io/revision")


@dataclass(frozen=True, slots=True)
class Found:
    """The objects of one environment, as the API lists them."""

    workloads: Sequence[Object]
    """Rollouts, Deployments, StatefulSets and Jobs."""
    replica_sets: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    commit: str | None = None


def status(stack: str, environment: str, url: str, found: Found, now: float) -> Status:
    """The status of an environment at `now` (Unix time)."""
    judged = [(w, health.judge(w)) for w in sorted(found.workloads, key=_name)]
    services = [_service(w, h, found, now) for w, h in judged if w["kind"] not in ("StatefulSet",)]
    resources = [_resource(w, h) for w, h in judged if w["kind"] == "StatefulSet"]
    flight = _flight([(w, h) for w, h in judged if w["kind"] == "Rollout"], found.commit or "")
    return Status(
        stack=stack,
        environment=environment,
        url=url,
        commit=found.commit,
        services=services,
        resources=resources,
        rollout=flight,
        running=any(s.active is not None and s.active.replicas for s in services),
        updated=now,
    )


def _service(workload: Object, state: Health, found: Found, now: float) -> ServiceStatus:
    name, kind = _name(workload), workload["kind"]
    if kind == "Job":
        phases: dict[str, Phase] = {"ready": "done", "failed": "crashing"}
        return ServiceStatus(name=name, kind="job", phase=phases.get(state.state, "starting"))
    sets = [s for s in found.replica_sets if owned(s, workload)]
    active, idle = _slots(workload, sets, found.pods, now)
    phase = _phase(workload, state, active)
    kind = _label(workload, COMPONENT) or "web"
    return ServiceStatus(name=name, kind=kind, phase=phase, active=active, idle=idle)


def _phase(workload: Object, state: Health, active: SlotStatus | None) -> Phase:
    if state.state == "held":
        return "held"
    if active is None:
        return "starting" if health.replicas_wanted(workload["spec"]) else "stopped"
    if active.ready >= active.replicas:
        return "running" if active.replicas else "stopped"
    if active.restarts and active.ready == 0:
        return "crashing"
    return "degraded" if active.ready or state.state == "failed" else "starting"


def _slots(
    workload: Object, sets: Sequence[Object], pods: Sequence[Object], now: float
) -> tuple[SlotStatus | None, SlotStatus | None]:
    """The active slot and the idle one: the newest other that has pods or is to have them."""
    first = serving(workload, sets)
    rest = [s for s in sets if s is not first and int(s["spec"].get("replicas") or 0) > 0]
    rest.sort(key=revision, reverse=True)
    active = _slot(first, pods, now) if first is not None else None
    idle = _slot(rest[0], pods, now) if rest else None
    return active, idle


def _slot(replica_set: Object, pods: Sequence[Object], now: float) -> SlotStatus:
    said = replica_set.get("status") or {}
    deadline = (replica_set["metadata"].get("annotations") or {}).get(DEADLINE)
    own = [p for p in pods if owned(p, replica_set)]
    labels = replica_set["spec"]["template"]["metadata"].get("labels") or {}
    return SlotStatus(
        slot=colour(replica_set),
        release=release(replica_set),
        revision=str(labels.get(VERSION, "")),
        replicas=int(replica_set["spec"].get("replicas") or 0),
        ready=int(said.get("readyReplicas") or 0),
        restarts=sum(
            int(c.get("restartCount") or 0)
            for p in own
            for c in (p.get("status") or {}).get("containerStatuses") or ()
        ),
        warm_for=max(0.0, _moment(deadline) - now) if deadline else None,
    )


def colour(replica_set: Object) -> Literal["blue", "green"]:
    """The slot that a ReplicaSet is."""
    return "blue" if revision(replica_set) % 2 else "green"


def serving(workload: Object, sets: Sequence[Object]) -> Object | None:
    """Which of its ReplicaSets is a workload's active slot."""
    own = [s for s in sets if owned(s, workload)]
    if workload["kind"] == "Rollout":
        said = ((workload.get("status") or {}).get("blueGreen") or {}).get("activeSelector")
        return next((s for s in own if said and _label(s, HASH) == said), None)
    return max(own, key=revision, default=None)


def release(workload: Object) -> str:
    """What a workload runs, as short as it names one thing: the tag or the digest of its image."""
    image = str(workload["spec"]["template"]["spec"]["containers"][0]["image"])
    if "@" in image:
        return image.rpartition("@")[2][:19]
    tag = image.rpartition("/")[2].partition(":")[2]
    return tag or "latest"


def _resource(workload: Object, state: Health) -> ResourceStatus:
    image = str(workload["spec"]["template"]["spec"]["containers"][0]["image"])
    kind = image.rpartition("/")[2].partition(":")[0].partition("@")[0]
    kinds = {"mongo": "mongodb"}
    running = state.ready > 0 if state.wanted else False
    return ResourceStatus(
        name=_name(workload), kind=kinds.get(kind, kind), provider="cluster", running=running
    )


def _flight(rollouts: Sequence[tuple[Object, Health]], commit: str) -> RolloutStatus | None:
    """The deployment that is on its way, or has failed and was not taken back."""
    open_ = [(w, h) for w, h in rollouts if h.state != "ready"]
    if not open_:
        return None
    names = [_name(w) for w, _ in open_]
    failed = [h.text for _, h in open_ if h.state == "failed"]
    if failed:
        said = {"state": "undoing", "outcome": "failed", "reason": failed[0]}
    elif all(h.state == "held" for _, h in open_):
        said = {"state": "holding"}
    else:
        said = {"state": step([w for w, h in open_ if h.state == "progressing"])}
    return RolloutStatus(commit=commit, services=names, **said)


def step(rollouts: Sequence[Object]) -> str:
    """Where the one that is least far has come to: starting, testing, switching or analysing."""
    order = ("starting", "testing", "switching", "analysing")
    return min((_step(r) for r in rollouts), key=order.index, default="starting")


def _step(rollout: Object) -> str:
    said = rollout.get("status") or {}
    blue_green = said.get("blueGreen") or {}
    new = said.get("currentPodHash")
    if new and new == blue_green.get("activeSelector"):
        return "analysing"
    before = (blue_green.get("prePromotionAnalysisRunStatus") or {}).get("status")
    if before in ("Pending", "Running"):
        return "testing"
    return "switching" if before == "Successful" else "starting"


def owned(thing: Object, owner: Object) -> bool:
    """Whether an object belongs to another, directly."""
    uid = owner["metadata"].get("uid")
    return any(o["uid"] == uid for o in thing["metadata"].get("ownerReferences") or ())


def revision(thing: Object) -> int:
    """The number of a ReplicaSet among those of its workload; 0 if it has none."""
    annotations: Mapping[str, Any] = thing["metadata"].get("annotations") or {}
    found = next((annotations[r] for r in REVISIONS if r in annotations), "0")
    return int(found) if str(found).isdigit() else 0


def _label(thing: Object, label: str) -> str:
    return str((thing["metadata"].get("labels") or {}).get(label, ""))


def _name(thing: Object) -> str:
    return _label(thing, NAME) or str(thing["metadata"]["name"])


def _moment(text: str) -> float:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
