"""Commit messages: a subject and body for people, trailers for programs. Pure.

The trailers follow git's own form (git-interpret-trailers), so `git log --format='%(trailers)'` and
other tools can read them. Everything that comes from outside is put on one line first: an actor's
name cannot begin a trailer of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lapwing.plan.model import Document, Service

PREFIX = "Lapwing-"


def compose(document: Document, before: Document | None) -> str:
    """The message of the commit that changes `before` into `document`."""
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
    """The services that differ, with what they were and will be."""
    old = before.services if before else {}
    names = sorted({*old, *document.services})
    pairs = {n: (old.get(n), document.services.get(n)) for n in names}
    return {n: pair for n, pair in pairs.items() if pair[0] != pair[1]}


def subject(
    document: Document, changed: Mapping[str, tuple[Service | None, Service | None]]
) -> str:
    """One line that says what the commit does."""
    act = document.deployment
    where = f"{document.stack}/{document.environment}"
    if act.kind == "revert":
        return one_line(f"revert {where}: {act.reason or 'the deployment failed'}", 100)
    if act.kind in ("promote", "abort", "down"):
        return f"{act.kind} {where}"
    what = ", ".join(f"{n} {_release(new)}" for n, (_, new) in sorted(changed.items()) if new)
    return one_line(f"{act.kind} {what or 'settings'} to {where}", 120)


def parse_trailers(message: str) -> dict[str, list[str]]:
    """Our trailers of a message, without the prefix: {"Actor": ["ada"], "Service": [...]}. They
    are in the last paragraph only: what stands above may be anybody's words."""
    found: dict[str, list[str]] = {}
    for line in message.strip().rpartition("\n\n")[2].splitlines():
        match = re.fullmatch(rf"{PREFIX}([A-Za-z-]+): (.*)", line)
        if match:
            found.setdefault(match[1], []).append(match[2])
    return found


def one_line(text: str, limit: int = 400) -> str:
    """Text with every line break and control character turned into a space, cut to a limit."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _trailers(
    document: Document, changed: Mapping[str, tuple[Service | None, Service | None]]
) -> list[str]:
    act = document.deployment
    pairs = [
        ("Stack", document.stack),
        ("Environment", document.environment),
        ("Kind", act.kind),
        ("Actor", act.actor),
        ("Revision", act.revision),
        ("Restores", act.restores or ""),
    ]
    pairs += [
        ("Service", f"{name}={new.release} {new.revision}" if new else f"{name}=removed")
        for name, (_, new) in sorted(changed.items())
    ]
    return [f"{PREFIX}{key}: {line}" for key, value in pairs if (line := one_line(value))]


def _release(service: Service | None) -> str:
    return service.release if service else "none"
