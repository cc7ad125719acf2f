"""Detect the programs of one folder from its files: Python, Node.js, Procfile, Dockerfile.

A program is only proposed with a command that can start it; a folder without one gives a note
instead, so that the stack file always loads.
"""

from __future__ import annotations

import re

from lapwing.stack import detect_routes
from lapwing.stack.detect_node import node_programs
from lapwing.stack.detect_python import MANIFESTS, python_dependencies, python_programs
from lapwing.stack.program import Files, Program, mapping, read_json

_DATABASES = {
    "pymongo": "mongodb", "mongoengine": "mongodb", "mongoose": "mongodb", "mongodb": "mongodb",
    "psycopg": "postgres", "psycopg2": "postgres", "psycopg2-binary": "postgres", "pg": "postgres",
    "pymysql": "mysql", "mysqlclient": "mysql", "mysql2": "mysql",
    "redis": "redis", "ioredis": "redis",
}  # fmt: skip


def programs(here: Files, packages: Files, notes: list[str], folder: str) -> list[Program]:
    """Detect the programs of a folder from its files and the `__init__.py` of its packages."""
    procfile = _procfile(here.get("Procfile", ""))
    found: list[Program] = []
    if set(MANIFESTS) & set(here):
        found = python_programs(here, packages, "web" in procfile)
    elif "package.json" in here:
        found = node_programs(here, "web" in procfile)
    elif "Procfile" not in here and "Dockerfile" not in here:
        if "index.html" in here:
            return [Program("static", static=".", spa=False)]
        return []
    source = has_source(here)
    if not source and "Dockerfile" in here:
        text = here["Dockerfile"]
        found = [Program("web", dockerfile=True, notes=_dockerfile_notes(text))]
        found[0].health = _docker_health(text)
        return found
    if not source:
        notes.append(f"{folder}: has a Procfile, but no Python or Node.js source to build.")
        return []
    if procfile:
        found = _with_procfile(found, procfile)
    if not found and (command := _docker_command(here.get("Dockerfile", ""))):
        note = "command: from the Dockerfile; change it to listen on $PORT."
        health = _docker_health(here["Dockerfile"])
        found = [Program("web", command, guess=True, health=health, notes=[note])]
    if not found and not _is_collection(here):
        adapter = "install @sveltejs/adapter-node or @sveltejs/adapter-static."
        svelte = "@sveltejs/kit" in here.get("package.json", "")
        notes.append(f"{folder}: {adapter if svelte else _no_command(here)}")
        package = mapping(read_json(here.get("package.json", "")))
        if not svelte and "build" in mapping(package.get("scripts")):
            notes.append(
                f"{folder}: the `build` script of package.json is not used. If it creates the "
                "page, set `build` to this folder and `static` to the folder that it writes."
            )
    uses = _databases(here)
    prefixes = detect_routes.prefixes(here, packages)
    for program in found:
        program.uses = uses if program.kind != "static" else []
        program.prefixes = prefixes if program.kind == "web" else []
    return found


def _no_command(here: Files) -> str:
    """Return why a folder with source has no start command."""
    manifest = next(name for name in (*MANIFESTS, "package.json") if name in here)
    if manifest == "package.json":
        return "package.json has no start command."
    if not python_dependencies(here):
        return f"no start command found: no dependencies in {manifest}, and no main.py."
    return f"no start command found: no supported framework in {manifest}."


def has_source(here: Files) -> bool:
    """Whether Lapwing can build a folder without a Dockerfile."""
    return bool({*MANIFESTS, "package.json"} & set(here))


def _dockerfile_notes(text: str) -> list[str]:
    notes = [
        "dockerfile: no Python or Node.js source found, so it runs as a container: on a "
        "machine with Docker or Podman, or on Kubernetes (`production` below)."
    ]
    if not re.search(r"^\s*USER\s+[1-9]\d*", text, re.M | re.I):
        notes.append("dockerfile: it needs a numeric `USER` other than 0, or `user:` here.")
    return notes


def _with_procfile(found: list[Program], procfile: dict[str, str]) -> list[Program]:
    """Prefer the commands of a Procfile to guesses; `release` becomes a job."""
    result = [p for p in found if p.kind == "static" or (p.kind == "web" and "web" not in procfile)]
    for name, command in procfile.items():
        if name == "web":
            old = next((p for p in found if p.kind == "web"), Program("web"))
            result.append(Program("web", command, health=old.health, smoke=old.smoke))
        elif name == "release":
            result.append(Program("job", command, suffix="release"))
        else:
            result.append(Program("worker", command, suffix=name))
    return result


def _procfile(text: str) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9_-]+):[ \t]*(\S.*)$", text, re.M)
    return {name.lower().replace("_", "-"): command.strip() for name, command in found}


def _docker_command(text: str) -> str | None:
    """Return the last CMD of a Dockerfile, in exec or shell form."""
    found = re.findall(r"^\s*CMD\s+(.+)$", text, re.M | re.I)
    if not found:
        return None
    words = read_json(found[-1]) if found[-1].startswith("[") else None
    if isinstance(words, list) and words and all(isinstance(w, str) for w in words):
        import shlex

        return shlex.join(words)
    return None if found[-1].startswith("[") else found[-1].strip()


def _docker_health(text: str) -> str | None:
    """Return the path that the HEALTHCHECK of a Dockerfile requests."""
    found = re.search(r"^\s*HEALTHCHECK\b(?:.*\\\n)*.*", text, re.M | re.I)
    return detect_routes.of_command(found[0]) if found else None


def _databases(here: Files) -> list[str]:
    known = python_dependencies(here)
    known |= set(mapping(mapping(read_json(here.get("package.json", ""))).get("dependencies")))
    return sorted({kind for package, kind in _DATABASES.items() if package in known})


def _is_collection(here: Files) -> bool:
    """Return whether the manifest only configures tools or workspaces."""
    text = here.get("package.json", "")
    return "workspaces" in mapping(read_json(text)) or "[project]" not in here.get(
        "pyproject.toml", "[project]"
    )
