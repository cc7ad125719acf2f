"""Detect services and resources in a folder, for the stack file of `lapwing init`.

`detect` works on the text of the files that `detect_files.py` reads. Whatever is a guess, or could
not be detected, becomes a note, which the file carries as a comment and the command prints.
"""

from __future__ import annotations

import itertools
import posixpath
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal

from lapwing.stack import compose, ecosystems
from lapwing.stack.compose import ComposeService
from lapwing.stack.compose_files import Choice
from lapwing.stack.detect_files import MODULES, SCRIPTS
from lapwing.stack.detect_volumes import volumes
from lapwing.stack.program import Files, Program, name_from


@dataclass(slots=True)
class FoundService:
    """A service found in `folder` (`.` for the top folder)."""

    name: str
    folder: str
    kind: Literal["web", "static", "worker", "job"]
    command: str | None = None
    static: str | None = None
    dockerfile: str | None = None
    run: str | None = None
    parts: dict[str, list[str]] = field(default_factory=dict)
    """The `extras` and `groups` of its pyproject.toml that it needs."""
    route: str | None = None
    health: str | None = None
    spa: bool = True
    smoke: list[str] = field(default_factory=list)
    """Paths for a smoke test; the first is used."""
    prefixes: list[str] = field(default_factory=list)
    needs: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    volumes: dict[str, str] = field(default_factory=dict)
    resources: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    """The result of detection. `notes` concern no single service."""

    stack: str
    services: list[FoundService] = field(default_factory=list)
    resources: list[compose.FoundResource] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def detect(name: str, files: Files, choice: Choice | None = None) -> Findings:
    """Detect what the stack file for these files contains; `name` is the folder's name."""
    findings = Findings(stack=name_from(name, "stack"))
    composed = compose.read(files, findings.notes, choice)
    findings.resources = composed.resources
    used: set[str] = set()
    folders = {str(PurePosixPath(path).parent) for path in files} - composed.left_out
    for folder in sorted(folders):
        here = {
            PurePosixPath(p).name: t
            for p, t in files.items()
            if str(PurePosixPath(p).parent) == folder
        }
        if "requirements.txt" in here:
            path = str(PurePosixPath(folder, "requirements.txt"))
            here["requirements.txt"] = _requirements(path, files, set())
        if "package.json" in here:
            here |= {n: t for n, t in _below(folder, files).items() if SCRIPTS.fullmatch(n)}
        if set(here) & {"index.html"} and any(_is_in(folder, f) for f in used):
            here.pop("index.html")
        inner = _inner_modules(folder, files)
        notes: list[str] = []
        programs = ecosystems.programs(here, inner, notes, folder)
        can_build = bool(programs) or ecosystems.has_source(here)
        pairs = _pair(programs, composed.services.get(folder, []) if can_build else [])
        findings.notes += notes if programs or not pairs else []
        for program, given in pairs:
            service = _service(findings, folder, program, given)
            _take_volumes(service, volumes(folder, files), given)
            findings.services.append(service)
            used.add(folder)
    for folder in sorted(composed.services.keys() - used):
        names = ", ".join(f"`{service.name}`" for service in composed.services[folder])
        findings.notes.append(f"{names} of Compose cannot be built from {folder}; ignored.")
    _route(findings.services)
    _check(findings)
    return findings


def _pair(
    programs: list[Program], composed: list[ComposeService]
) -> list[tuple[Program, ComposeService | None]]:
    """Pair the programs of a folder with its services in the Compose file.

    The main program is the published service, or the first. A program that is only in the source,
    such as a migration, has the variables of the main one. Further services with a command are
    programs, too.
    """
    if not composed:
        return [(program, None) for program in programs]
    main = next((c for c in composed if c.published), composed[0])
    first = next((p for p in programs if not p.suffix), None)
    if first is None and main.command:
        first = Program("worker", guess=True)
        programs = [first, *programs]
    if first is not None and first.guess and (main.command or main.published):
        first.command = main.command or first.command
        first.kind, first.notes = ("web", [_FROM_COMPOSE]) if main.published else ("worker", [])
    elif first is not None and main.command and main.command != first.command:
        _take_command(first, main.command)
    pairs: list[tuple[Program, ComposeService | None]] = [(p, main) for p in programs]
    known = {program.command for program in programs}
    migrates = any("migrate" in str(command) for command in known)
    for other in composed:
        command = other.command
        if other is main:
            continue
        if command is None or command in known or (first and first.dockerfile):
            if pairs:
                note = f"the Compose service `{other.name}` also builds this folder: "
                note += "add it if it is another program."
                pairs[0][0].notes.append(note)
            continue
        if "migrate" not in command:
            kind: Literal["web", "worker"] = "web" if other.published else "worker"
            pairs.append((Program(kind, command, notes=[_FROM_COMPOSE] * other.published), other))
        elif not migrates:
            pairs.append((Program("job", command), other))
    return pairs


_FROM_COMPOSE = (
    "command: the Compose file publishes a port of this service; it must listen on 127.0.0.1:$PORT."
)


_ADDRESSES = {"gunicorn": "--bind|-b", "uvicorn": "--host|--port", "flask": "--host|--port|-h|-p"}
"""Options of web servers for the address; gunicorn reads `PORT` without any."""


def _take_command(program: Program, command: str) -> None:
    """Take the command of the Compose file if it starts the same web server; else add a note."""
    words = (program.command or "").split()
    prefix = "".join(f"{w} " for w in itertools.takewhile(lambda w: "=" in w, words))
    name = next((w for w in words if "=" not in w), "")
    serves = name != "flask" or re.search(r" run( |$)", command)
    if name in _ADDRESSES and serves and re.fullmatch(rf"{name} [^&|;<>]*", command):
        option = rf" (?:{_ADDRESSES[name]})(?:=| ?)\S+| --(?:reload|debug)(?= |$)"
        port = "" if name == "gunicorn" else " --port $PORT"
        program.command = prefix + re.sub(option, "", command) + port
        if program.command != command:
            program.notes.append(
                "command: from the Compose file, but with the port $PORT and without reloading."
            )
        return
    by = f"`{program.command}`" if program.command else "the command of the Dockerfile"
    by = f"the static files in {program.static}" if program.static else by
    program.notes.append(f"command: `{command}` of the Compose file is replaced by {by}.")


def _take_volumes(
    service: FoundService, found: dict[str, str], composed: ComposeService | None
) -> None:
    if service.kind == "static" or service.dockerfile:
        return
    service.volumes = dict(found)
    for name, path in (composed.volumes if composed else {}).items():
        others = [PurePosixPath(p) for p in service.volumes.values()]
        if not any(_is_in(path, str(o)) or _is_in(str(o), path) for o in others):
            service.volumes[name_from(name, "data")] = path
    if service.volumes:
        service.notes.append("volumes: only these paths are kept across releases.")


def _is_in(folder: str, other: str) -> bool:
    """Return whether a folder is another one or below it."""
    return PurePosixPath(folder).is_relative_to(other) or other == "."


def _requirements(path: str, files: Files, seen: set[str]) -> str:
    """Return a requirements file with the files that it includes by `-r`."""
    if path in seen or path not in files:
        return ""
    seen.add(path)
    lines = []
    for line in files[path].splitlines():
        include = re.match(r"\s*(?:-r|--requirement)[\s=]*(\S+)", line)
        other = include and posixpath.normpath(PurePosixPath(path).parent / include[1])
        lines.append(_requirements(other, files, seen) if other else line)
    return "\n".join(lines)


def _below(folder: str, files: Files) -> dict[str, str]:
    """Return the files below a folder, by path relative to it."""
    prefix = "" if folder == "." else f"{folder}/"
    return {p.removeprefix(prefix): t for p, t in files.items() if p.startswith(prefix)}


def _inner_modules(folder: str, files: Files) -> dict[str, str]:
    """Return the modules of packages in a folder or its `src`, by import path below the folder."""
    found = {}
    for path, text in files.items():
        inner = PurePosixPath(path)
        if inner.suffix != ".py" or inner.stem not in MODULES or not _is_in(path, folder):
            continue
        parts = inner.relative_to(folder).with_suffix("").parts
        if len(parts) == 2 + (parts[0] == "src"):
            found["/".join(parts).removesuffix("/__init__")] = text
    return found


def _service(
    findings: Findings, folder: str, program: Program, composed: ComposeService | None
) -> FoundService:
    name = (composed.name if composed else "") or PurePosixPath(folder).name or "app"
    if program.suffix:
        name = f"{name}-{program.suffix}" if folder != "." else program.suffix
    used = [s.name for s in findings.services] + [r.name for r in findings.resources]
    kinds = {r.name: r.kind for r in findings.resources}
    needs = composed.needs if composed else [n for n, k in kinds.items() if k in program.uses]
    notes = list(program.notes)
    for kind in program.uses:
        if kind not in kinds.values():
            notes.append(f"It depends on a {kind} client: add {kind} to `resources` and `needs`.")
    service = FoundService(
        name=_unused(name_from(name, "app"), used),
        folder=folder if folder == "." else f"./{folder}",
        kind=program.kind,
        command=program.command,
        static=program.static,
        dockerfile=str(PurePosixPath(folder, "Dockerfile")) if program.dockerfile else None,
        run=program.run,
        parts=program.parts,
        spa=program.spa,
        smoke=program.smoke,
        prefixes=program.prefixes,
        health=program.health,
        notes=notes,
    )
    if program.kind != "static":
        service.needs = [n for n in needs if n in kinds]
        if composed:
            service.env, service.secrets = composed.env, composed.secrets
            notes.extend([] if program.suffix else composed.notes)
            if not program.suffix:
                service.resources = composed.resources
            if program.kind == "web":
                service.health = composed.health or service.health
    elif composed and (composed.env or composed.secrets or composed.notes):
        notes.append("env: variables of the Compose file are not copied; see `build: {env: ...}`.")
    return service


def _unused(name: str, used: list[str]) -> str:
    free, count = name, 2
    while free in used:
        free, count = f"{name[:37]}-{count}", count + 1
    return free


_API = "/api"


def _route(services: list[FoundService]) -> None:
    """Give the static site `/`, and services `/api`, or their names if there are several.

    A service whose source has routes below `/api` gets that prefix. The only one gets `/`.
    """
    sites = [s for s in services if s.kind == "static"]
    servers = [s for s in services if s.kind == "web"]
    several = len(sites) + len(servers) > 1
    apis = [s for s in servers if _API in s.prefixes] or (servers if sites else [])
    api = apis[0] if several and len(apis) == 1 else None
    taken = {_API} if api else set()
    for service in [*sites, *servers]:
        route = "/" if "/" not in taken else f"/{_unused(service.name, [r[1:] for r in taken])}"
        service.route = route = _API if service is api else route
        taken.add(route)
        if several:
            service.notes.append(_reason(service, route))


def _check(findings: Findings) -> None:
    """Choose between a health check and a smoke test, and add a note about services without one.

    A smoke test goes through the routes. A path outside of the service's route becomes its health
    check, which is requested directly.
    """
    routes = [s.route for s in findings.services if s.route]
    for service in findings.services:
        if service.kind != "web":
            continue
        paths = [service.health] if service.health else service.smoke
        within = [p for p in paths if _owner(p, routes) == service.route]
        if not paths:
            service.notes.append(
                "health: no route to check was found in its source; it is ready when GET "
                f"{service.route} responds with any status below 500."
            )
        elif not within:
            service.health = paths[0]
            service.notes.append("health: requested directly from the service, outside of route.")
        service.smoke = within
    workers = [f"`{s.name}`" for s in findings.services if s.kind == "worker"]
    if workers:
        findings.notes.append(
            f"health: {', '.join(workers)} {'has' if len(workers) == 1 else 'have'} no port to "
            "check: a worker is ready when it has run for a second."
        )


def _owner(path: str, routes: list[str]) -> str:
    """Return the route that requests for a path take."""
    return max((route for route in routes if _is_in(path, route)), key=len, default="")


def _reason(service: FoundService, route: str) -> str:
    """Return the note that says why a service has its route."""
    if route in service.prefixes and route != "/":
        return f"route: routes in its source begin with {route}."
    note = f"route: a guess; requests with this prefix go to `{service.name}`."
    others = [prefix for prefix in service.prefixes if prefix not in ("/", service.health)][:3]
    if route == "/" or not others:
        return note
    return (
        f"route: a guess; routes in its source begin with {', '.join(others)}, and requests keep "
        f"their path. Serve them below {route}, or change the route."
    )
