"""The difference between two documents of an environment: what a deployment changes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from lapwing.plan.model import Document, Edge, Resource, Service, Struct

Action = Literal["create", "update", "delete"]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a deployment changes.

    `kind` is `service`, `resource`, `environment`, or the kind of a Kubernetes object. `from` and
    `to` are releases of a service, or kind and provider of a resource; `fields` are other settings
    that change.
    """

    kind: str
    name: str
    action: Action
    before: str | None = msgspec.field(default=None, name="from")
    after: str | None = msgspec.field(default=None, name="to")
    fields: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return one line of text."""
        if self.action == "update" and self.before != self.after:
            details = [f"{self.before} -> {self.after}", *self.fields]
        elif self.action == "update":
            details = list(self.fields)
        else:
            details = [value for value in (self.after or self.before,) if value]
        action: str = self.action
        if self.kind in ("service", "resource") and self.action == "delete":
            action = "stop"
            details = ["its data is kept"] if self.kind == "resource" else details
        text = f"{action:6} {self.kind} {self.name}"
        return f"{text}: {', '.join(details)}" if details else text


def diff(document: Document, before: Document | None) -> list[Change]:
    """Compare a document with the one before it; services come first."""
    old_services = before.services if before else {}
    old_resources = before.resources if before else {}
    changes = _compare("service", old_services, document.services)
    changes += _compare("resource", old_resources, document.resources)
    if before is not None and not changes:
        keys = ("domains", "acme", "backup", "logs", "maintenance")
        fields = tuple(key for key in keys if getattr(before, key) != getattr(document, key))
        fields += _changed_fields(before.edge or Edge(), document.edge or Edge())
        if fields:
            name = document.environment
            return [Change(kind="environment", name=name, action="update", fields=fields)]
    return changes


def _compare(kind: str, old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    changes = []
    for name in sorted({*old, *new}):
        one, other = old.get(name), new.get(name)
        if one == other:
            continue
        action: Action = "create" if one is None else "delete" if other is None else "update"
        fields = _changed_fields(one, other) if one is not None and other is not None else ()
        changes.append(
            Change(
                kind=kind,
                name=name,
                action=action,
                before=_version(one),
                after=_version(other),
                fields=fields,
            )
        )
    return changes


def _version(part: Service | Resource | None) -> str | None:
    if part is None:
        return None
    return part.release if isinstance(part, Service) else f"{part.kind} ({part.provider})"


def _changed_fields(one: Struct, other: Struct) -> tuple[str, ...]:
    """List the settings that differ; the revision only where nothing else does."""
    shown = {"release", "revision", "kind", "provider"}
    changed = [f for f in one.__struct_fields__ if getattr(one, f) != getattr(other, f)]
    return tuple(f for f in changed if f not in shown) or (
        ("revision",) if changed == ["revision"] else ()
    )
