"""What an upgrade consists of, read from the objects to apply.

The Job of an offline migration names in its annotations the services that it stops and the database
that is backed up (see render/kubernetes/jobs.py); everything else is in the workloads themselves.
So an upgrade needs no stack file, only the objects.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lapwing.kubernetes.objects import Object, annotation, image_of, label
from lapwing.plan.names import BACKS_UP, INSTANCE, NAME, OFFLINE_MIGRATION, STOPS

WORKLOADS = ("Rollout", "Deployment")
SCALER = "HorizontalPodAutoscaler"


@dataclass(frozen=True, slots=True)
class UpgradePlan:
    """One service with an offline migration.

    `workloads` are all that use its database, in the order in which they are started: the service
    itself first; `scheduled` are the scheduled jobs that use it. `database` is the StatefulSet that
    Lapwing can back up, None if the database is managed elsewhere or no backups are configured.
    """

    service: str
    namespace: str
    migration: Object
    workloads: tuple[Object, ...]
    scheduled: tuple[str, ...]
    database: Object | None
    least: Mapping[str, int]
    """Replicas to start each workload with if it did not run before."""

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
        """The label selector of every pod that may have a connection, the migration included."""
        names = ",".join((*self.parts, *self.scheduled, part_of(self.migration)))
        return f"{NAME} in ({names}),{INSTANCE}={label(self.migration, INSTANCE)}"


def plans(things: Iterable[Object]) -> list[UpgradePlan]:
    """Return the offline migrations among the objects to apply."""
    every = list(things)
    workloads = {part_of(t): t for t in every if t["kind"] in WORKLOADS}
    databases = {part_of(t): t for t in every if t["kind"] == "StatefulSet"}
    scheduled = {part_of(t) for t in every if t["kind"] == "CronJob"}
    scalers = {part_of(t): int(t["spec"]["minReplicas"]) for t in every if t["kind"] == SCALER}
    found = []
    for thing in every:
        service = annotation(thing, OFFLINE_MIGRATION)
        if thing["kind"] != "Job" or service not in workloads:
            continue
        stopped = annotation(thing, STOPS).split()
        parts = (service, *(p for p in stopped if p in workloads and p != service))
        replicas = {p: int(workloads[p]["spec"].get("replicas") or 1) for p in parts}
        found.append(
            UpgradePlan(
                service=service,
                namespace=str(thing["metadata"]["namespace"]),
                migration=thing,
                workloads=tuple(workloads[p] for p in parts),
                scheduled=tuple(p for p in stopped if p in scheduled),
                database=databases.get(annotation(thing, BACKS_UP)),
                least={p: scalers.get(p) or replicas[p] for p in parts},
            )
        )
    return found


def part_of(thing: Object) -> str:
    """Return the service, resource or job that an object belongs to."""
    return label(thing, NAME)


def bare(live: Object) -> dict[str, Any]:
    """Return an object of the cluster as it can be applied again, without the server's fields."""
    kept = ("name", "namespace", "labels", "annotations")
    metadata = {k: copy.deepcopy(v) for k, v in live["metadata"].items() if k in kept}
    for revision in ("deployment.kubernetes.io/revision", "rollout.argoproj.io/revision"):
        (metadata.get("annotations") or {}).pop(revision, None)
    return {
        "apiVersion": live["apiVersion"],
        "kind": live["kind"],
        "metadata": metadata,
        "spec": copy.deepcopy(dict(live["spec"])),
    }
