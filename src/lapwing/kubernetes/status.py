"""The status of an environment in a cluster, as `lapwing status` shows it.

A service is a Rollout (blue-green, by Argo Rollouts) or a Deployment; its slots are its ReplicaSets
(see `pods`).
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lapwing.kubernetes import health
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.health import Health
from lapwing.kubernetes.objects import Object, annotation, image_of, is_owned_by, label
from lapwing.kubernetes.pods import ROLLOUT, active_replica_set, revision_of, slot_of
from lapwing.observed.status import (
    Phase,
    ResourceStatus,
    RolloutStatus,
    RunStatus,
    ScheduleStatus,
    ServiceStatus,
    SlotStatus,
    Status,
)
from lapwing.plan.names import COMPONENT, NAME, release_of
from lapwing.stack import cron

WORKLOADS = (
    ROLLOUT,
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
)
VERSION = "app.kubernetes.io/version"
SCALE_DOWN_DEADLINE = "scale-down-deadline"


@dataclass(frozen=True, slots=True)
class EnvironmentObjects:
    """The objects of one environment, as the API lists them."""

    workloads: Sequence[Object]
    """Rollouts, Deployments, StatefulSets, Jobs and CronJobs."""
    replica_sets: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    commit: str | None = None


def list_workloads(api: ApiClient, scope: Scope) -> list[Object]:
    """List the Rollouts, Deployments, StatefulSets, Jobs and CronJobs of an environment."""
    return [
        workload
        for version, kind in WORKLOADS
        for workload in api.list(
            version, kind, scope.namespace, scope.selector, missing_kind_ok=True
        )
        if not workload["metadata"].get("ownerReferences")  # The run of a CronJob.
    ]


def read_status(api: ApiClient, scope: Scope, url: str) -> Status | None:
    """Return the status of an environment; None if it has no objects in the cluster."""
    record = api.get(scope.applyset)
    if record is None:
        return None
    found = EnvironmentObjects(
        workloads=list_workloads(api, scope),
        replica_sets=api.list("apps/v1", "ReplicaSet", scope.namespace),
        pods=api.list("v1", "Pod", scope.namespace),
        commit=str((record.get("data") or {}).get("commit") or "") or None,
    )
    return status(scope.stack, scope.environment, url, found, time.time())


def status(stack: str, environment: str, url: str, found: EnvironmentObjects, now: float) -> Status:
    """Return the status of an environment at `now` (Unix time)."""
    judged = [(w, health.judge(w)) for w in sorted(found.workloads, key=service_name)]
    services = [_service(w, h, found, now) for w, h in judged if w["kind"] != "StatefulSet"]
    rollouts = [(w, h) for w, h in judged if w["kind"] == "Rollout"]
    return Status(
        stack=stack,
        environment=environment,
        url=url,
        commit=found.commit,
        services=services,
        resources=[_resource(w, h) for w, h in judged if w["kind"] == "StatefulSet"],
        rollout=_rollout(rollouts, found.commit or ""),
        running=any(s.active is not None and s.active.replicas for s in services),
        updated=now,
    )


def _service(
    workload: Object, state: Health, found: EnvironmentObjects, now: float
) -> ServiceStatus:
    name = service_name(workload)
    if workload["kind"] == "Job":
        phases: dict[str, Phase] = {"ready": "done", "failed": "crashing"}
        return ServiceStatus(name=name, kind="job", phase=phases.get(state.state, "starting"))
    if workload["kind"] == "CronJob":
        schedule = _schedule(workload, now)
        return ServiceStatus(name=name, kind="job", phase="scheduled", schedule=schedule)
    active, idle = _slots(workload, found, now)
    return ServiceStatus(
        name=name,
        kind=label(workload, COMPONENT) or "web",
        phase=_phase(workload, state, active),
        active=active,
        idle=idle,
    )


def _schedule(job: Object, now: float) -> ScheduleStatus:
    """Return the schedule of a CronJob, and its last run as far as its status has it."""
    spec, found = job["spec"], job.get("status") or {}
    began, succeeded = (
        _timestamp(found[key]) if found.get(key) else None
        for key in ("lastScheduleTime", "lastSuccessfulTime")
    )
    last = None
    if began is not None and not found.get("active"):
        is_success = succeeded is not None and succeeded >= began
        last = RunStatus(
            due=began,
            outcome="succeeded" if is_success else "failed",
            began=began,
            ended=succeeded if succeeded is not None and is_success else None,
        )
    zone = str(spec.get("timeZone") or "UTC")
    return ScheduleStatus(
        cron=spec["schedule"],
        timezone=zone,
        next=None if spec.get("suspend") else cron.next_time(spec["schedule"], zone, now),
        running_since=began if found.get("active") else None,
        last=last,
    )


def _phase(workload: Object, state: Health, active: SlotStatus | None) -> Phase:
    if state.state == "held":
        return "held"
    if active is None:
        return "starting" if health.wanted_replicas(workload["spec"]) else "stopped"
    if active.ready >= active.replicas:
        return "running" if active.replicas else "stopped"
    if active.restarts and active.ready == 0:
        return "crashing"
    return "degraded" if active.ready or state.state == "failed" else "starting"


def _slots(
    workload: Object, found: EnvironmentObjects, now: float
) -> tuple[SlotStatus | None, SlotStatus | None]:
    """Return the active slot and the idle one: the newest other with wanted replicas."""
    own = [s for s in found.replica_sets if is_owned_by(s, {workload["metadata"].get("uid")})]
    active = active_replica_set(workload, own)
    others = [s for s in own if s is not active and int(s["spec"].get("replicas") or 0) > 0]
    idle = max(others, key=revision_of, default=None)
    return (
        _slot(active, found.pods, now) if active is not None else None,
        _slot(idle, found.pods, now) if idle is not None else None,
    )


def _slot(replica_set: Object, pods: Sequence[Object], now: float) -> SlotStatus:
    deadline = annotation(replica_set, SCALE_DOWN_DEADLINE)
    own = [p for p in pods if is_owned_by(p, {replica_set["metadata"].get("uid")})]
    return SlotStatus(
        slot=slot_of(replica_set),
        release=release_of(image_of(replica_set)),
        revision=label(replica_set["spec"]["template"], VERSION),
        replicas=int(replica_set["spec"].get("replicas") or 0),
        ready=int((replica_set.get("status") or {}).get("readyReplicas") or 0),
        restarts=sum(
            int(c.get("restartCount") or 0)
            for p in own
            for c in (p.get("status") or {}).get("containerStatuses") or ()
        ),
        warm_for=max(0.0, _timestamp(deadline) - now) if deadline else None,
    )


def _resource(workload: Object, state: Health) -> ResourceStatus:
    return ResourceStatus(
        name=service_name(workload),
        kind=label(workload, COMPONENT),
        provider="cluster",
        running=state.ready > 0 and state.wanted > 0,
    )


def _rollout(rollouts: Sequence[tuple[Object, Health]], commit: str) -> RolloutStatus | None:
    """Return the deployment that is in progress, or has failed and was not rolled back."""
    unfinished = [(w, h) for w, h in rollouts if h.state != "ready"]
    if not unfinished:
        return None
    failed = [h.text for _, h in unfinished if h.state == "failed"]
    if failed:
        state = {"state": "undoing", "outcome": "failed", "reason": failed[0]}
    elif all(h.state == "held" for _, h in unfinished):
        state = {"state": "holding"}
    else:
        state = {"state": rollout_step([w for w, h in unfinished if h.state == "progressing"])}
    services = [service_name(w) for w, _ in unfinished]
    return RolloutStatus(commit=commit, services=services, **state)


def rollout_step(rollouts: Sequence[Object]) -> str:
    """Return the earliest step of these Rollouts: starting, testing, switching or analysing."""
    order = ("starting", "testing", "switching", "analysing")
    return min((_step(r) for r in rollouts), key=order.index, default="starting")


def _step(rollout: Object) -> str:
    found = rollout.get("status") or {}
    blue_green = found.get("blueGreen") or {}
    new = found.get("currentPodHash")
    if new and new == blue_green.get("activeSelector"):
        return "analysing"
    smoke_tests = (blue_green.get("prePromotionAnalysisRunStatus") or {}).get("status")
    if smoke_tests in ("Pending", "Running"):
        return "testing"
    return "switching" if smoke_tests == "Successful" else "starting"


def service_name(workload: Object) -> str:
    """Return the service or resource that a workload runs."""
    return label(workload, NAME) or str(workload["metadata"]["name"])


def _timestamp(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()
