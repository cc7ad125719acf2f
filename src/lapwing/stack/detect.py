"""Detect services and resources in a folder, for the stack file of `lapwing init`.

`read_files` reads a few small files: those that name dependencies and commands, and the top-level
Python files. `detect` works on their text. Whatever is a guess, or could not be detected, becomes a
note, which the file carries as a comment and the command prints.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from lapwing.stack import compose, ecosystems
from lapwing.stack.ecosystems import Program

Files = Mapping[str, str]

MAX_FILE_BYTES = 256 * 1024
MAX_FILES = 400
_FILE_NAMES = {
    "pyproject.toml", "requirements.txt", "package.json", "Procfile", "Dockerfile", "manage.py",
    "compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml",
    "vite.config.js", "vite.config.ts", "vite.config.mjs", "next.config.js", "next.config.mjs",
    "next.config.ts", "angular.json", "svelte.config.js", "svelte.config.ts", "index.html",
    "Pipfile", "setup.py",
}  # fmt: skip
_MODULES = ("__init__", "main", "app", "api", "server", "asgi", "wsgi")
"""Modules of a package that are searched for an application."""
_GROUPS = ("services", "apps")
"""Folders whose subfolders are searched as well."""
_UPLOADS = re.compile(
    r"(?:path\.join\([^\"'\n]*|\b(?:Path|open|makedirs|mkdir)\(\s*[rf]?|[\w)]\s*/\s*[rf]?)"
    r"[\"'](?:\./)?((?:[\w-]+/)*?(?:uploads?|media|user_uploads|attachments))(?:/[^\"'\n]*)?[\"']"
)
"""A usual name of an upload folder in a path: `Path("uploads")`, `open("uploads/...")`."""
_REQUIREMENTS = re.compile(r"requirements[\w.-]*\.txt")
_SKIPPED = {"node_modules", "venv", "tests", "test", "docs", "dist", "build", "__pycache__"}


@dataclass(slots=True)
class FoundService:
    """A service found in `folder` (`.` for the top folder)."""

    name: str
    folder: str
    kind: Literal["web", "static", "worker", "job"]
    command: str | None = None
    static: str | None = None
    route: str | None = None
    health: str | None = None
    spa: bool = True
    answers_root: bool = False
    """Whether its source has a handler for `GET /`, for a smoke test."""
    needs: list[str] = field(default_factory=list)
    volumes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Findings:
    """The result of detection. `notes` concern no single service."""

    stack: str
    services: list[FoundService] = field(default_factory=list)
    resources: list[compose.FoundResource] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def detect(name: str, files: Files) -> Findings:
    """Detect what the stack file for these files contains; `name` is the folder's name."""
    findings = Findings(stack=name_from(name, "stack"))
    composed = compose.read(files, findings.notes)
    findings.resources = composed.resources
    used: set[str] = set()
    for folder in sorted({str(PurePosixPath(path).parent) for path in files}):
        here = {
            PurePosixPath(p).name: t
            for p, t in files.items()
            if str(PurePosixPath(p).parent) == folder
        }
        if "requirements.txt" in here:
            path = str(PurePosixPath(folder, "requirements.txt"))
            here["requirements.txt"] = _requirements(path, files, set())
        if set(here) & {"index.html"} and any(_is_in(folder, f) for f in used):
            here.pop("index.html")
        inner = _inner_modules(folder, files)
        for program in ecosystems.programs(here, inner, findings.notes, folder):
            service = _service(findings, folder, program, composed)
            if service.kind != "static":
                service.volumes = volumes(folder, files)
            if service.volumes:
                service.notes.append("volumes: kept across releases; everything else is not.")
            findings.services.append(service)
            used.add(folder)
    _route(findings.services)
    return findings


def volumes(folder: str, files: Files) -> dict[str, str]:
    """Find the SQLite file and the upload folders that the Python source of a folder names."""
    depth = 1 if folder == "." else 2
    text = "\n".join(
        text
        for path, text in files.items()
        if path.endswith(".py") and PurePosixPath(path).is_relative_to(folder)
        and len(PurePosixPath(path).parts) <= depth + 1
    )  # fmt: skip
    found = {}
    match = re.search(r"""["'/]([\w-]+\.(?:sqlite3?|db))["']""", text)
    if match and "sqlite" in text:
        instance = "instance/" if re.search(r"flask_sqlalchemy|instance_path", text) else ""
        found["data"] = f"./{instance}{match[1]}"
    for name, path in re.findall(
        r"""(UPLOAD\w*|MEDIA_ROOT)["'\]]*\s*=[^\n"']*["'](?:\./)?(\w[\w/-]*?)/?["']""", text
    ):
        found[name_from(PurePosixPath(path).name, name.lower())] = f"./{path}"
    for path in _UPLOADS.findall(text):
        if f"./{path}" not in found.values():
            found.setdefault(name_from(PurePosixPath(path).name, "uploads"), f"./{path}")
    return found


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


def _inner_modules(folder: str, files: Files) -> dict[str, str]:
    """Return the modules of packages in a folder or its `src`, by import path below the folder."""
    found = {}
    for path, text in files.items():
        inner = PurePosixPath(path)
        if inner.suffix != ".py" or inner.stem not in _MODULES or not _is_in(path, folder):
            continue
        parts = inner.relative_to(folder).with_suffix("").parts
        if len(parts) == 2 + (parts[0] == "src"):
            found["/".join(parts).removesuffix("/__init__")] = text
    return found


def name_from(text: str, otherwise: str) -> str:
    """Return a valid name made from any text."""
    name = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-").lstrip("0123456789-")[:40]
    return name.rstrip("-") or otherwise


def _service(
    findings: Findings, folder: str, program: Program, composed: compose.Composed
) -> FoundService:
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
            notes.append(f"It depends on a {kind} client: add {kind} to `resources` and `needs`.")
    return FoundService(
        name=name,
        folder=folder if folder == "." else f"./{folder}",
        kind=program.kind,
        command=program.command,
        static=program.static,
        spa=program.spa,
        answers_root=program.answers_root,
        health=program.health,
        needs=[n for n in needs if n in kinds] if program.kind != "static" else [],
        notes=notes,
    )


def _unused(name: str, used: list[str]) -> str:
    free, count = name, 2
    while free in used:
        free, count = f"{name[:37]}-{count}", count + 1
    return free


def _route(services: list[FoundService]) -> None:
    """Give the static site `/`, and services `/api`, or their names if there are several."""
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
                f"route: a guess; requests with this prefix go to `{service.name}`."
            )
        if service.health and not service.health.startswith(route):
            service.notes.append("health: requested directly from the service, outside of route.")


def read_files(folder: Path) -> dict[str, str]:
    """Read the files that detection needs, by relative path. Raises OSError for the folder itself.

    Follows no symbolic link out of the folder.
    """
    texts: dict[str, str] = {}
    for path in _candidates(folder):
        if len(texts) >= MAX_FILES:
            break
        text = _text(path)
        if text is not None:
            texts[path.relative_to(folder).as_posix()] = text
    return texts


def _candidates(folder: Path) -> Iterator[Path]:
    for top in (folder, *_subfolders(folder)):
        yield from _files(top)
        if top.parent == folder and top.name in _GROUPS:
            for inner in _subfolders(top):
                yield from _files(inner)


def _files(folder: Path) -> Iterator[Path]:
    try:
        names = sorted(folder.iterdir())
    except PermissionError:
        return
    for path in names:
        if path.name in _FILE_NAMES or path.suffix == ".py" or _REQUIREMENTS.match(path.name):
            yield path
        elif path.name == "requirements" and path.is_dir():
            yield from sorted(path.glob("*.txt"))
        elif path.name == "src" and path.is_dir() and not path.is_symlink():
            for package in _subfolders(path):
                yield from _package(package)
        elif path.is_dir() and not path.is_symlink():
            yield from _package(path)


def _package(folder: Path) -> Iterator[Path]:
    for module in _MODULES:
        if (folder / f"{module}.py").is_file():
            yield folder / f"{module}.py"


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_dir() and not p.is_symlink() and p.name not in _SKIPPED and p.name[0] != "."
    )


def _text(path: Path) -> str | None:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
