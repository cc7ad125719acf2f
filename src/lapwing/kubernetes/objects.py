"""Objects of the Kubernetes API as plain mappings, and references to them.

Half of the kinds that we handle are custom resources, so typed models would cover the other half
only. The functions here read what every kind has: labels, annotations, owners and conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]
"""An object of the API: apiVersion, kind, metadata and the fields of its kind."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """One object. `namespace` is empty for cluster-scoped kinds."""

    version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        """Return kind and name, for messages."""
        return f"{self.kind} {self.name}"

    def key(self) -> tuple[str, str, str, str]:
        """Identify the object whatever the version of its API group.

        An object stays the same one when its API moves from v1beta1 to v1.
        """
        return self.version.rpartition("/")[0], self.kind, self.namespace, self.name

    @classmethod
    def of(cls, thing: Object) -> Reference:
        """Return the reference of an object."""
        metadata = thing["metadata"]
        return cls(
            str(thing["apiVersion"]),
            str(thing["kind"]),
            str(metadata.get("namespace") or ""),
            str(metadata["name"]),
        )

    @classmethod
    def of_scale_target(cls, autoscaler: Object) -> Reference:
        """Return the reference of the workload that an autoscaler scales."""
        target = autoscaler["spec"]["scaleTargetRef"]
        namespace = str(autoscaler["metadata"]["namespace"])
        return cls(str(target["apiVersion"]), str(target["kind"]), namespace, str(target["name"]))


def label(thing: Object, name: str) -> str:
    """Return a label of an object; empty if it has none of that name."""
    return str((thing["metadata"].get("labels") or {}).get(name, ""))


def annotation(thing: Object, name: str) -> str:
    """Return an annotation of an object; empty if it has none of that name."""
    return str((thing["metadata"].get("annotations") or {}).get(name, ""))


def condition(thing: Object, kind: str) -> Mapping[str, Any]:
    """Return a condition of an object's status; empty if it has none of that type."""
    conditions = (thing.get("status") or {}).get("conditions") or ()
    found: Mapping[str, Any] = next((c for c in conditions if c.get("type") == kind), {})
    return found


def is_owned_by(thing: Object, uids: set[str]) -> bool:
    """Return whether one of these objects is a direct owner of an object."""
    return any(o["uid"] in uids for o in thing["metadata"].get("ownerReferences") or ())


def is_terminating(thing: Object) -> bool:
    """Return whether an object is being deleted."""
    return bool(thing["metadata"].get("deletionTimestamp"))


def pod_spec(workload: Object) -> Mapping[str, Any]:
    """Return the specification of a workload's pods."""
    spec = workload["spec"]
    template = spec["jobTemplate"]["spec"] if "jobTemplate" in spec else spec
    found: Mapping[str, Any] = template["template"]["spec"]
    return found


def image_of(workload: Object) -> str:
    """Return the image of a workload's first container."""
    return str(pod_spec(workload)["containers"][0]["image"])
