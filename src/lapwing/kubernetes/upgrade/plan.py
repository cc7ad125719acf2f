"""What an upgrade is about, read from the objects that are to be applied. Pure.

The migration that may meet no connection says in its annotations which services it stops and which
database is backed up (see render/kubernetes/jobs.py); everything else stands in the workloads
themselves. So a guarded upgrade needs no stack file, only the objects.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lapwing.plan.names import BACKS_UP, INSTANCE, NAME, OFFLINE_MIGRATION, STOPS

Object = Mapping[str, Any]
WORKLOADS = ("Rollout", "Deployment")
SCALER = "HorizontalPodAutoscaler"


@dataclass(frozen=True, slots=True)
class Plan:
    """One service whose migration is offline. `workloads` are all that use its database, in the
    order in which they are started: the service itself first. `database` is the StatefulSet that
    Lapwing can back up, None where somebody else runs it or nobody asked for backups."""

    service: str
    namespace: str
    migration: Object
    workloads: tuple[Object, ...]
    database: Object | None
    least: Mapping[str, int]
    """Replicas to start each workload with, where nothing is known of those before."""

    @property
    def own(self) -> Object:
        """The workload of the service itself."""
        return self.workloads[0]

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the services that are stopped."""
        return tuple(part_of(w) for w in self.workloads)

    @property
    def image(self) -> str:
        """The image of the new version."""
        return image_of(self.own)

    @property
    def pods(self) -> str:
        """The label selector of every pod that may hold a connection: of the services, and of the
        migration itself."""
        names = ",".join((*self.parts, part_of(self.migration)))
        return f"{NAME} in ({names}),{INSTANCE}={instance_of(self.migration)}"


def plans(things: Iterable[Object]) -> list[Plan]:
    """The offline migrations among the objects to apply."""
    every = list(things)
    workloads = {part_of(t): t for t in every if t["kind"] in WORKLOADS}
    databases = {part_of(t): t for t in every if t["kind"] == "StatefulSet"}
    scalers = {part_of(t): int(t["spec"]["minReplicas"]) for t in every if t["kind"] == SCALER}
    found = []
    for thing in every:
        told = thing["metadata"].get("annotations") or {}
        if thing["kind"] != "Job" or OFFLINE_MIGRATION not in told:
            continue
        service = str(told[OFFLINE_MIGRATION])
        others = [p for p in str(told.get(STOPS, "")).split() if p in workloads and p != service]
        parts = (service, *others)
        found.append(
            Plan(
                service=service,
                namespace=str(thing["metadata"]["namespace"]),
                migration=thing,
                workloads=tuple(workloads[p] for p in parts),
                database=databases.get(str(told.get(BACKS_UP))),
                least={p: scalers.get(p) or _replicas(workloads[p]) for p in parts},
            )
        )
    return found


def _replicas(workload: Object) -> int:
    return int(workload["spec"].get("replicas") or 1)


def image_of(workload: Object) -> str:
    """The image of the first container."""
    return str(workload["spec"]["template"]["spec"]["containers"][0]["image"])


def part_of(thing: Object) -> str:
    """The service, resource or job that an object belongs to."""
    return str((thing["metadata"].get("labels") or {}).get(NAME, ""))


def instance_of(thing: Object) -> str:
    """What all names of the installation begin with."""
    return str((thing["metadata"].get("labels") or {}).get(INSTANCE, ""))


def bare(live: Object) -> dict[str, Any]:
    """An object of the cluster as it can be applied again: without what the server wrote."""
    kept = ("name", "namespace", "labels", "annotations")
    metadata = {k: copy.deepcopy(v) for k, v in live["metadata"].items() if k in kept}
    for written in ("deployment.kubernetes.io/revision", "rollout.argoproj.io/revision"):
        (metadata.get("annotations") or {}).pop(written, None)
    return {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": metadata,
        "spec": copy.deepcopy(dict(live["spec"])),
    }
