"""What a folder seems to hold: services and resources for a first stack file. Pure.

Works on texts by path (from `lapwing.stack.look`). Whatever is a guess, and whatever could not be
found out, becomes a note, which the draft carries as a comment and the command tells on screen:
better a question than a wrong certainty.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from lapwing.stack import compose, ecosystems
from lapwing.stack.ecosystems import Program

Files = Mapping[str, str]


@dataclass(slots=True)
class Found:
    """A service that was found in `folder` (`.` for the top)."""

    name: str
    folder: str
    kind: Literal["web", "static", "worker", "job"]
    command: str | None = None
    static: str | None = None
    route: str | None = None
    health: str | None = None
    needs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    """Everything that was found. `notes` are about what is in no service."""

    stack: str
    services: list[Found] = field(default_factory=list)
    resources: list[compose.FoundResource] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def detect(name: str, files: Files) -> Findings:
    """What a stack file for these files would hold; `name` is the name of the folder."""
    findings = Findings(stack=name_from(name, "stack"))
    composed = compose.read(files, findings.notes)
    findings.resources = composed.resources
    for folder in sorted({str(PurePosixPath(path).parent) for path in files}):
        here = {
            PurePosixPath(p).name: t
            for p, t in files.items()
            if str(PurePosixPath(p).parent) == folder
        }
        packages = {p: t for p, t in files.items() if PurePosixPath(p).name == "__init__.py"}
        inner = {
            PurePosixPath(p).parent.name: t
            for p, t in packages.items()
            if str(PurePosixPath(p).parent.parent) == folder
        }
        for program in ecosystems.programs(here, inner, findings.notes, folder):
            findings.services.append(_service(findings, folder, program, composed))
    _route(findings.services)
    return findings


def name_from(text: str, otherwise: str) -> str:
    """A valid name made of any text."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-").lstrip("0123456789-")[:40]
    return name.rstrip("-") or otherwise


def _service(
    findings: Findings, folder: str, program: Program, composed: compose.Composed
) -> Found:
    name = composed.names.get(folder) or PurePosixPath(folder).name or "app"
    if program.suffix:
        name = f"{name}-{program.suffix}" if folder != "." else program.suffix
    used = [s.name for s in findings.services] + [r.name for r in findings.resources]
    name = _unused(name_from(name, "app"), used)
    kinds = {r.name: r.kind for r in findings.resources}
    needs = composed.needs.get(folder, [n for n, k in kinds.items() if k in program.uses])
    notes = list(program.notes)
    for kind in program.uses:
        if kind not in kinds.values():
            notes.append(f"It has a client for {kind}: add it to `resources` and to `needs`.")
    return Found(
        name=name,
        folder=folder if folder == "." else f"./{folder}",
        kind=program.kind,
        command=program.command,
        static=program.static,
        health=program.health,
        needs=[n for n in needs if n in kinds] if program.kind != "static" else [],
        notes=notes,
    )


def _unused(name: str, used: list[str]) -> str:
    free, count = name, 2
    while free in used:
        free, count = f"{name[:37]}-{count}", count + 1
    return free


def _route(services: list[Found]) -> None:
    """The site gets `/`; the services behind it `/api`, or their names where they are several."""
    sites = [s for s in services if s.kind == "static"]
    servers = [s for s in services if s.kind == "web"]
    taken: set[str] = set()
    for service in [*sites, *servers]:
        route = "/" if "/" not in taken else f"/{service.name}"
        if service in servers and sites and len(servers) == 1:
            route = "/api"
        taken.add(route)
        service.route = route
        if len(sites) + len(servers) > 1:
            service.notes.append(
                f"route: a guess; requests that begin with it go to `{service.name}`."
            )
        if service.health and not service.health.startswith(route):
            service.notes.append("health: asked of the service itself, so it need not be in route.")
