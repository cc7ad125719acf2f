"""Compare two documents of an environment and describe the changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lapwing.plan.model import Document, Service, Struct


@dataclass(frozen=True, slots=True)
class Change:
    """One service or resource that changes, and how."""

    name: str
    act: Literal["add", "change", "remove"]
    text: str

    def __str__(self) -> str:
        """Format the change as one line."""
        return f"{self.act:6} {self.name}: {self.text}"

    @property
    def as_data(self) -> dict[str, str]:
        """Return the change for JSON."""
        return {"name": self.name, "act": self.act, "text": self.text}


def diff(document: Document, before: Document | None) -> list[Change]:
    """List the changes from `before` to `document`, services first."""
    old = before.services if before else {}
    changes = []
    for name in sorted({*old, *document.services}):
        one, other = old.get(name), document.services.get(name)
        if one is None and other is not None:
            changes.append(Change(name, "add", f"new {other.kind}, release {other.release}"))
        elif other is None:
            changes.append(Change(name, "remove", "no longer in the stack"))
        elif one is not None and one != other:
            changes.append(Change(name, "change", _description(one, other)))
    old_resources = before.resources if before else {}
    for name in sorted({*old_resources, *document.resources}):
        if old_resources.get(name) != document.resources.get(name):
            act: Literal["add", "change", "remove"] = "change"
            if name not in old_resources:
                act = "add"
            elif name not in document.resources:
                act = "remove"
            found = document.resources.get(name) or old_resources[name]
            changes.append(Change(name, act, f"{found.kind} by {found.provider}"))
    if before is not None and before.domains != document.domains and not changes:
        changes.append(Change(document.environment, "change", "host names"))
    return changes


def _description(one: Service, other: Service) -> str:
    if one.release != other.release:
        return f"{one.release} -> {other.release}" + (
            "" if _settings(one, other) == [] else f", {', '.join(_settings(one, other))}"
        )
    return ", ".join(_settings(one, other)) or "revision"


def _settings(one: Struct, other: Struct) -> list[str]:
    skipped = {"release", "revision"}
    return [
        f
        for f in one.__struct_fields__
        if f not in skipped and getattr(one, f) != getattr(other, f)
    ]
