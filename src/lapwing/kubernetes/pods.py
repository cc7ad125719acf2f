"""The pods of an environment: their service, their component and their slot.

A pod names its service in the label `app.kubernetes.io/name` and its component in
`app.kubernetes.io/component`: web, static, worker or job, `edge`, or the kind of a database.

The slot of a pod is that of its ReplicaSet: odd revisions are blue, even ones green, so two that
follow each other always differ, also after a rollback, which makes the older one the newest
revision again. Which slot is active is read from the status of the Rollout, which follows the
selector of the active Service.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import (
    Object,
    annotation,
    condition,
    is_owned_by,
    is_terminating,
    label,
)
from lapwing.plan.names import COMPONENT, NAME

ROLLOUT = ("argoproj.io/v1alpha1", "Rollout")
RESOURCES = ("mysql", "redis", "mongodb", "postgres")
EDGE = "edge"
POD_HASH = "rollouts-pod-template-hash"
REVISIONS = ("rollout.argoproj.io/revision", "deployment.kubernetes.io/revision")


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod.

    `slot` is empty for a pod without one (a database, a job); `active` says whether its slot gets
    traffic.
    """

    service: str
    component: str
    pod: Object
    slot: str = ""
    revision: int = 0
    active: bool = True

    @property
    def name(self) -> str:
        """The name of the pod."""
        return str(self.pod["metadata"]["name"])

    @property
    def namespace(self) -> str:
        """The namespace of the pod."""
        return str(self.pod["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        """The unique id of the pod."""
        return str(self.pod["metadata"]["uid"])

    @property
    def label(self) -> str:
        """The short name of the replica, as on a machine: `blue-7.x5k2p`, with ` idle`."""
        last = self.name.rpartition("-")[2]
        if not self.slot:
            return f"{self.component}.{last}" if self.component else last
        return f"{self.slot}-{self.revision}.{last}" + ("" if self.active else " idle")

    @property
    def ready(self) -> bool:
        """Whether it may get requests."""
        is_ready = condition(self.pod, "Ready").get("status") == "True"
        return is_ready and not is_terminating(self.pod)

    @property
    def statuses(self) -> dict[str, Mapping[str, Any]]:
        """The status of each container by its name, init containers included."""
        status = self.pod.get("status") or {}
        lists = ("initContainerStatuses", "containerStatuses")
        return {str(c["name"]): c for key in lists for c in status.get(key) or ()}

    def belongs_to(self, service: str) -> bool:
        """Return whether it is a replica of a service, or its migration."""
        is_migration = self.component == "job" and self.service == f"{service}-migrate"
        return self.service == service or is_migration


def list_pods(api: ApiClient, scope: Scope) -> list[Pod]:
    """List the pods of an environment."""
    found = api.list("v1", "Pod", scope.namespace)
    sets = api.list("apps/v1", "ReplicaSet", scope.namespace)
    workloads = api.list("apps/v1", "Deployment", scope.namespace)
    workloads += api.list(*ROLLOUT, scope.namespace, missing_kind_ok=True)
    return list(describe_pods(found, sets, workloads))


def running_images(api: ApiClient, scope: Scope, service: str) -> set[str]:
    """Return the images of the ready replicas of a service."""
    replicas = (p for p in list_pods(api, scope) if p.service == service and p.slot and p.ready)
    return {str(c["image"]) for p in replicas for c in p.pod["spec"]["containers"]}


def describe_pods(
    pods: Sequence[Object], sets: Sequence[Object], workloads: Sequence[Object]
) -> Iterator[Pod]:
    """Yield pods with their service and slot; pods without a service label are left out."""
    active = {
        found["metadata"]["uid"]
        for workload in workloads
        if (found := active_replica_set(workload, sets)) is not None
    }
    for pod in sorted(pods, key=lambda p: str(p["metadata"]["name"])):
        service, component = label(pod, NAME), label(pod, COMPONENT)
        if not service:
            continue
        owner = next((s for s in sets if is_owned_by(pod, {s["metadata"]["uid"]})), None)
        if owner is None or component == EDGE:
            yield Pod(service, component, pod)
            continue
        yield Pod(
            service=service,
            component=component,
            pod=pod,
            slot=slot_of(owner),
            revision=revision_of(owner),
            active=owner["metadata"]["uid"] in active,
        )


def active_replica_set(workload: Object, sets: Sequence[Object]) -> Object | None:
    """Return the ReplicaSet that is a workload's active slot, if it has one."""
    own = [s for s in sets if is_owned_by(s, {workload["metadata"].get("uid")})]
    if workload["kind"] == "Rollout":
        selector = ((workload.get("status") or {}).get("blueGreen") or {}).get("activeSelector")
        return next((s for s in own if selector and label(s, POD_HASH) == selector), None)
    return max(own, key=revision_of, default=None)


def slot_of(replica_set: Object) -> Literal["blue", "green"]:
    """Return the slot of a ReplicaSet."""
    return "blue" if revision_of(replica_set) % 2 else "green"


def revision_of(replica_set: Object) -> int:
    """Return the revision of a ReplicaSet within its workload; 0 if it has none."""
    found = next((r for name in REVISIONS if (r := annotation(replica_set, name))), "")
    return int(found) if found.isdigit() else 0
