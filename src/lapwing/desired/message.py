"""Commit messages of the desired state: a subject and body for people, trailers for programs.

The trailers have the format of git-interpret-trailers, so other tools can read them, for instance
`git log --format='%(trailers)'`. Line breaks are removed from all values: the name of an actor
cannot add a trailer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lapwing.plan.model import Document, Service

PREFIX = "Lapwing-"


def compose(document: Document, before: Document | None) -> str:
    """Return the message of the commit that changes `before` into `document`."""
    changed = changes(document, before)
    lines = [subject(document, changed), ""]
    for name, (old, new) in sorted(changed.items()):
        lines.append(f"{name}: {_release(old)} -> {_release(new)}")
    if document.deployment.reason:
        lines += ["", one_line(document.deployment.reason)]
    lines += ["", *_trailers(document, changed)]
    return "\n".join(lines) + "\n"


def changes(
    document: Document, before: Document | None
) -> dict[str, tuple[Service | None, Service | None]]:
    """Return the services that differ, each with its old and new state."""
    old = before.services if before else {}
    names = sorted({*old, *document.services})
    pairs = {n: (old.get(n), document.services.get(n)) for n in names}
    return {n: pair for n, pair in pairs.items() if pair[0] != pair[1]}


def subject(
    document: Document, changed: Mapping[str, tuple[Service | None, Service | None]]
) -> str:
    """Return the first line: what the commit changes, and where."""
    deployment = document.deployment
    where = f"{document.stack}/{document.environment}"
    if deployment.kind == "revert":
        return one_line(f"revert {where}: {deployment.reason or 'the deployment failed'}", 100)
    if deployment.kind == "restore":
        return one_line(f"restore {where}: {deployment.reason}", 100)
    if deployment.kind in ("promote", "abort", "down"):
        return f"{deployment.kind} {where}"
    if deployment.kind == "maintenance":
        return f"maintenance {'on' if document.maintenance else 'off'} {where}"
    what = ", ".join(f"{n} {_release(new)}" for n, (_, new) in sorted(changed.items()) if new)
    return one_line(f"{deployment.kind} {what or 'settings'} to {where}", 120)


def parse_trailers(message: str) -> dict[str, list[str]]:
    """Return Lapwing's trailers, without the prefix: {"Actor": ["ada"], "Service": [...]}.

    Only the last paragraph is read: the text above may contain anything.
    """
    found: dict[str, list[str]] = {}
    for line in message.strip().rpartition("\n\n")[2].splitlines():
        match = re.fullmatch(rf"{PREFIX}([A-Za-z-]+): (.*)", line)
        if match:
            found.setdefault(match[1], []).append(match[2])
    return found


def one_line(text: str, limit: int = 400) -> str:
    """Return a text on one line, without control characters, of at most `limit` characters."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _trailers(
    document: Document, changed: Mapping[str, tuple[Service | None, Service | None]]
) -> list[str]:
    deployment = document.deployment
    pairs = [
        ("Stack", document.stack),
        ("Environment", document.environment),
        ("Kind", deployment.kind),
        ("Actor", deployment.actor),
        ("Revision", deployment.revision),
        ("Restores", deployment.restores or ""),
    ]
    pairs += [
        ("Service", f"{name}={new.release} {new.revision}" if new else f"{name}=removed")
        for name, (_, new) in sorted(changed.items())
    ]
    return [f"{PREFIX}{key}: {line}" for key, value in pairs if (line := one_line(value))]


def _release(service: Service | None) -> str:
    return service.release if service else "none"
