"""References: which object of a cluster is meant. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]
"""An object as the API knows it: apiVersion, kind, metadata, and what its kind has."""


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """One object. `namespace` is empty for what belongs to the whole cluster."""

    version: str
    kind: str
    namespace: str
    name: str

    @property
    def group(self) -> str:
        """The API group; empty for the core one."""
        return self.version.rpartition("/")[0]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"

    def key(self) -> str:
        """One line that `parse` reads back. The version of the group is left out on purpose: an
        object stays the same one when its API moves from v1beta1 to v1."""
        return "/".join((self.group, self.kind, self.namespace, self.name))

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
