"""The pods of an environment, by what they do and which slot they are of.

A pod names its service in the label `app.kubernetes.io/name` and what it is in
`app.kubernetes.io/component`: web, static, worker or job, `edge`, or the kind of a database. Its
slot is that of the ReplicaSet that it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lapwing.errors import KindMissingError
from lapwing.kubernetes import status
from lapwing.kubernetes.objects import Object
from lapwing.plan.names import COMPONENT, NAME

if TYPE_CHECKING:
    from lapwing.kubernetes.apply import Scope
    from lapwing.kubernetes.client import ApiClient

RESOURCES = ("mysql", "redis", "mongodb", "postgres")
EDGE = "edge"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. `slot` is empty for what has none (a database, a job); `active` says whether its
    slot is the one with the traffic."""

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
        return str(self.pod["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        return str(self.pod["metadata"]["uid"])

    @property
    def label(self) -> str:
        """Which replica it is, as short as on a machine: `blue-7.x5k2p`, and whether it is idle."""
        last = self.name.rpartition("-")[2]
        if not self.slot:
            return f"{self.component}.{last}" if self.component else last
        return f"{self.slot}-{self.revision}.{last}" + ("" if self.active else " idle")

    @property
    def leaving(self) -> bool:
        """Whether it has been told to end."""
        return bool(self.pod["metadata"].get("deletionTimestamp"))

    @property
    def ready(self) -> bool:
        """Whether it may be sent requests."""
        conditions = (self.pod.get("status") or {}).get("conditions") or ()
        says = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        return says and not self.leaving

    @property
    def statuses(self) -> dict[str, Mapping[str, Any]]:
        """What the kubelet says of each container, those that run first and end included."""
        said = self.pod.get("status") or {}
        lists = ("initContainerStatuses", "containerStatuses")
        return {str(c["name"]): c for key in lists for c in said.get(key) or ()}

    def belongs_to(self, service: str) -> bool:
        """Whether it is of a service: a replica of it, or its migration."""
        migration = self.component == "job" and self.service == f"{service}-migrate"
        return self.service == service or migration


def of_scope(api: ApiClient, scope: Scope) -> list[Pod]:
    """The pods of an environment now. Raises ClusterError."""
    pods = api.list("v1", "Pod", scope.namespace)
    sets = api.list("apps/v1", "ReplicaSet", scope.namespace)
    workloads = api.list("apps/v1", "Deployment", scope.namespace)
    try:
        workloads += api.list("argoproj.io/v1alpha1", "Rollout", scope.namespace)
    except KindMissingError:
        pass
    return list(instances(pods, sets, workloads))


def instances(
    pods: Sequence[Object], sets: Sequence[Object], workloads: Sequence[Object]
) -> Iterator[Pod]:
    """The pods with what they are; those that name no service are somebody else's. Pure."""
    serving = {
        found["metadata"]["uid"]
        for workload in workloads
        if (found := status.serving(workload, sets)) is not None
    }
    for pod in sorted(pods, key=lambda p: str(p["metadata"]["name"])):
        labels = pod["metadata"].get("labels") or {}
        service, component = labels.get(NAME), str(labels.get(COMPONENT, ""))
        if not service:
            continue
        owner = next((s for s in sets if status.owned(pod, s)), None)
        if owner is None or component == EDGE:
            yield Pod(str(service), component, pod)
            continue
        yield Pod(
            service=str(service),
            component=component,
            pod=pod,
            slot=status.colour(owner),
            revision=status.revision(owner),
            active=owner["metadata"]["uid"] in serving,
        )
