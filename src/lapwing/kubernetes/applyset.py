"""The apply set: which objects a stack has put in a cluster, so that pruning knows what to delete.

It is a ConfigMap beside the objects. Before anything is applied it is extended by what is about to
be applied, and only when everything is ready it is reduced to what was wanted: so whatever an
interrupted run leaves behind is known to the next one. It only names objects; their labels must
still say that they are managed by us before one is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lapwing.kubernetes.objects import Object, Reference, label
from lapwing.plan.names import ENVIRONMENT, MANAGED_BY, PART_OF

NAME = "lapwing-inventory"
KEEP = "lapwing.dev/keep"
"""Label of objects that are never pruned: generated passwords."""
KEPT_KINDS = ("PersistentVolumeClaim", "Namespace", "CustomResourceDefinition")
"""Kinds that hold data or other objects: never pruned."""
_PRUNE_ORDER = {"Ingress": 0, "HTTPRoute": 0, "Gateway": 1, "HorizontalPodAutoscaler": 2}


@dataclass(frozen=True, slots=True)
class Scope:
    """One environment of one stack in a cluster, whose objects are managed together."""

    stack: str
    environment: str
    namespace: str

    @property
    def labels(self) -> dict[str, str]:
        """The labels that mark an object as managed by this scope."""
        return {MANAGED_BY: "lapwing", PART_OF: self.stack, ENVIRONMENT: self.environment}

    @property
    def selector(self) -> str:
        """The label selector of every object of this scope."""
        return ",".join(f"{k}={v}" for k, v in self.labels.items())

    @property
    def home(self) -> Reference:
        """The namespace of the environment."""
        return Reference("v1", "Namespace", "", self.namespace)

    @property
    def applyset(self) -> Reference:
        """The ConfigMap that holds the apply set."""
        return Reference("v1", "ConfigMap", self.namespace, NAME)

    def manages(self, thing: Object) -> bool:
        """Return whether an object carries the labels of this scope."""
        return all(label(thing, k) == v for k, v in self.labels.items())

    def with_labels(self, thing: Object) -> dict[str, Any]:
        """Return an object with the labels of this scope."""
        metadata = thing["metadata"]
        merged = {**(metadata.get("labels") or {}), **self.labels}
        return {**thing, "metadata": {**metadata, "labels": merged}}


def is_kept(thing: Object) -> bool:
    """Return whether an object is labelled to stay when it is not wanted any more."""
    return label(thing, KEEP) == "true"


def config_map(scope: Scope, references: Iterable[Reference], commit: str) -> dict[str, Any]:
    """Build the ConfigMap that lists references, with the commit that they come from."""
    lines = sorted({f"{r.version} {r.kind} {r.namespace or '-'} {r.name}" for r in references})
    thing = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": NAME, "namespace": scope.namespace},
        "data": {"objects": "\n".join(lines), "commit": commit},
    }
    return scope.with_labels(thing)


def references(found: Object | None) -> set[Reference]:
    """Read the references of an apply set; invalid lines are ignored."""
    data: Mapping[str, str] = (found or {}).get("data") or {}
    parts = [line.split(" ") for line in data.get("objects", "").splitlines()]
    return {Reference(p[0], p[1], "" if p[2] == "-" else p[2], p[3]) for p in parts if len(p) == 4}


def to_prune(before: Iterable[Reference], wanted: Iterable[Reference]) -> list[Reference]:
    """Return what to delete: in the apply set, not wanted, and of no kind that is kept.

    What routes traffic is deleted before what serves it.
    """
    kept = {reference.key() for reference in wanted}
    gone = [r for r in before if r.key() not in kept and r.kind not in KEPT_KINDS]
    return sorted(gone, key=lambda r: (_PRUNE_ORDER.get(r.kind, 5), r))
