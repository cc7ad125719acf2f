"""Inventory: which objects a stack has put in a cluster, so that what left the file can go. Pure.

The inventory is a ConfigMap beside the objects. Before anything is applied it is widened by what
is to come, and only when everything has come to run is it cut to what there should be: so whatever
an interrupted run leaves behind is known to the next one. It names objects; their labels must
still say that they are ours before one is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lapwing.kubernetes.objects import Object, Reference
from lapwing.plan.names import ENVIRONMENT, MANAGED_BY, PART_OF

NAME = "lapwing-inventory"
KEEP = "lapwing.dev/keep"
"""The label of what is made once and outlives what needs it: passwords that were made up."""
KEPT = ("PersistentVolumeClaim", "Namespace", "CustomResourceDefinition")
"""Kinds that hold data, or hold others: never deleted because they left the file."""


def labels(stack: str, environment: str) -> dict[str, str]:
    """The labels that mark an object as ours."""
    return {MANAGED_BY: "lapwing", PART_OF: stack, ENVIRONMENT: environment}


def is_managed(thing: Object, stack: str, environment: str) -> bool:
    """Whether an object is marked as one of this stack in this environment."""
    found = thing["metadata"].get("labels") or {}
    return all(found.get(k) == v for k, v in labels(stack, environment).items())


def is_kept(thing: Object) -> bool:
    """Whether an object says of itself that it outlives what needs it."""
    return (thing["metadata"].get("labels") or {}).get(KEEP) == "true"


def with_labels(thing: Object, stack: str, environment: str) -> dict[str, Any]:
    """The object with our labels."""
    metadata = thing["metadata"]
    merged = {**(metadata.get("labels") or {}), **labels(stack, environment)}
    return {**thing, "metadata": {**metadata, "labels": merged}}


def config_map(
    namespace: str, stack: str, environment: str, references: Iterable[Reference], commit: str
) -> dict[str, Any]:
    """The ConfigMap that lists references, for the commit that they come from."""
    lines = sorted({f"{r.version} {r.kind} {r.namespace or '-'} {r.name}" for r in references})
    thing = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": namespace},
        "data": {"objects": "\n".join(lines), "commit": commit},
    }
    return with_labels(thing, stack, environment)


def references(found: Object | None) -> set[Reference]:
    """The references of an inventory; a line that is none is passed over."""
    data: Mapping[str, str] = (found or {}).get("data") or {}
    parts = [line.split(" ") for line in data.get("objects", "").splitlines()]
    return {Reference(p[0], p[1], "" if p[2] == "-" else p[2], p[3]) for p in parts if len(p) == 4}


def to_prune(before: Iterable[Reference], wanted: Iterable[Reference]) -> list[Reference]:
    """What left the file: in the inventory and not wanted any more, data excepted. What routes
    traffic goes before what serves it."""
    kept = {reference.key() for reference in wanted}
    gone = [r for r in before if r.key() not in kept and r.kind not in KEPT]
    return sorted(gone, key=lambda r: (_ORDER.get(r.kind, 5), r))


_ORDER = {"Ingress": 0, "HTTPRoute": 0, "Gateway": 1, "HorizontalPodAutoscaler": 2}
