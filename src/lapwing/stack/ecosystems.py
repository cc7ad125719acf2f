"""Detect the programs of one folder from its files: Python, Node.js, Procfile, Dockerfile.

A program is only proposed with a command that can start it; a folder without one gives a note
instead, so that the stack file always loads.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lapwing.stack.detect_files import SCRIPTS

Files = Mapping[str, str]

_PYTHON = ("pyproject.toml", "requirements.txt", "Pipfile", "setup.py")
_SITES = {"vite": "dist", "react-scripts": "build", "@vue/cli-service": "dist", "astro": "dist",
          "gatsby": "public", "parcel": "dist"}  # fmt: skip
_FRAMEWORKS = {"flask": "Flask", "fastapi": "FastAPI", "starlette": "Starlette"}
_SERVERS = ("express", "fastify", "koa", "hono", "@nestjs/core", "@hapi/hapi")
_DATABASES = {
    "pymongo": "mongodb", "mongoengine": "mongodb", "mongoose": "mongodb", "mongodb": "mongodb",
    "psycopg": "postgres", "psycopg2": "postgres", "psycopg2-binary": "postgres", "pg": "postgres",
    "pymysql": "mysql", "mysqlclient": "mysql", "mysql2": "mysql",
    "redis": "redis", "ioredis": "redis",
}  # fmt: skip
_ROUTE = re.compile(
    r"""\.(?:route|get|post|put|patch|delete|use|all|websocket|add_url_rule)\(\s*r?["'`]/([\w-]*)"""
    r"""|prefix\s*[=:]\s*["'`]/([\w-]*)"""
    r"""|(?:setGlobalPrefix|\bpath)\(\s*["'`]/?([\w-]+)"""
)
"""The first segment of a path in a route of Flask, FastAPI, Express, Fastify, NestJS or Django."""
THREADS = 8
"""Threads of a gunicorn worker: without any, one slow request occupies the whole worker."""


@dataclass(slots=True)
class Program:
    """A program to run as a service.

    `suffix` distinguishes it from the folder's main program; `uses` are the kinds of databases that
    it has a client for.
    """

    kind: Literal["web", "static", "worker", "job"]
    command: str | None = None
    static: str | None = None
    dockerfile: bool = False
    """Whether only its Dockerfile can build it."""
    guess: bool = False
    """Whether the command is a guess, which a Compose file may replace."""
    run: str | None = None
    """The command that completes the build."""
    parts: dict[str, list[str]] = field(default_factory=dict)
    """The `extras` or `groups` of the pyproject.toml that its server is in."""
    health: str | None = None
    spa: bool = True
    answers_root: bool = False
    suffix: str = ""
    uses: list[str] = field(default_factory=list)
    prefixes: list[str] = field(default_factory=list)
    """The first segments of the paths that its routes have, as far as they were found."""
    notes: list[str] = field(default_factory=list)


def programs(here: Files, packages: Files, notes: list[str], folder: str) -> list[Program]:
    """Detect the programs of a folder from its files and the `__init__.py` of its packages."""
    procfile = _procfile(here.get("Procfile", ""))
    found: list[Program] = []
    if set(_PYTHON) & set(here):
        found = _python(here, packages, "web" in procfile)
    elif "package.json" in here:
        found = _node(here, "web" in procfile)
    elif "Procfile" not in here and "Dockerfile" not in here:
        if "index.html" in here:
            return [Program("static", static=".", spa=False)]
        return []
    source = has_source(here)
    if not source and "Dockerfile" in here:
        return [Program("web", dockerfile=True, notes=_dockerfile_notes(here["Dockerfile"]))]
    if not source:
        notes.append(f"{folder}: has a Procfile, but no Python or Node.js source to build.")
        return []
    if procfile:
        found = _with_procfile(found, procfile)
    if not found and (command := _docker_command(here.get("Dockerfile", ""))):
        note = "command: from the Dockerfile; change it to listen on $PORT."
        found = [Program("web", command, guess=True, notes=[note])]
    if not found and not _is_collection(here):
        adapter = "install @sveltejs/adapter-node or @sveltejs/adapter-static."
        svelte = "@sveltejs/kit" in here.get("package.json", "")
        notes.append(f"{folder}: {adapter if svelte else 'no start command found.'}")
    uses = _databases(here)
    prefixes = _prefixes(here, packages)
    for program in found:
        program.uses = uses if program.kind != "static" else []
        program.prefixes = prefixes if program.kind == "web" else []
    return found


def _prefixes(here: Files, packages: Files) -> list[str]:
    texts = [t for n, t in here.items() if n.endswith(".py") or SCRIPTS.fullmatch(n)]
    found = {"".join(groups) for t in (*texts, *packages.values()) for groups in _ROUTE.findall(t)}
    return sorted(f"/{segment}" for segment in found)


def has_source(here: Files) -> bool:
    """Whether Lapwing can build a folder without a Dockerfile."""
    return bool({*_PYTHON, "package.json"} & set(here))


def dependencies(text: str) -> set[str]:
    """Extract package names from requirements.txt or pyproject.toml, approximately."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    found = re.findall(r"""(?:^|["'\[,])\s*([A-Za-z0-9][A-Za-z0-9._-]*)""", "\n".join(lines), re.M)
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in found}
    if re.search(r"\bfastapi\s*\[[^\]]*\b(?:standard|all)\b", text, re.IGNORECASE):
        names.add("uvicorn")
    return names


def _python(here: Files, packages: Files, has_command: bool) -> list[Program]:
    known = _python_dependencies(here)
    modules = {n.removesuffix(".py"): t for n, t in here.items() if n.endswith(".py")}
    modules |= packages
    if "django" in known and "manage.py" in here:
        return _django(here["manage.py"], known)
    for framework, maker in _FRAMEWORKS.items():
        if framework in known and (place := _application(modules, maker)):
            program = _served(framework, place[0], known)
            if "requirements.txt" not in here:
                program.parts = _parts(here.get("pyproject.toml", ""), program.command or "")
            program.health = _health(place[1])
            program.answers_root = bool(re.search(r"""\.(?:get|route)\(\s*["']/["']""", place[1]))
            if place[2]:
                program.command = f"PYTHONPATH=src {program.command}"
            if not {"pyproject.toml", "requirements.txt", "setup.py"} & set(here):
                program.notes.append(_NO_REQUIREMENTS)
            return [program]
    if "main.py" in here and not has_command:
        note = "command: a guess; if it serves HTTP, add `route: /` and listen on $PORT."
        return [Program("worker", "python main.py", guess=True, notes=[note])]
    return []


_NO_REQUIREMENTS = (
    "build: Lapwing installs from uv.lock, requirements.txt or pyproject.toml; write one of them, "
    "for example with `pipenv requirements > requirements.txt`."
)


def _python_dependencies(here: Files) -> set[str]:
    """Return the packages that a Python folder names; keys of a Pipfile are package names."""
    pipfile = re.findall(r"^\s*[\"']?([A-Za-z0-9._-]+)[\"']?\s*=", here.get("Pipfile", ""), re.M)
    texts = (here.get(name, "") for name in ("pyproject.toml", "requirements.txt", "setup.py"))
    return dependencies("\n".join([*texts, *pipfile]))


def _parts(pyproject: str, command: str) -> dict[str, list[str]]:
    """Return the extra or group of a pyproject.toml that has the server of a command."""
    try:
        document = tomllib.loads(pyproject)
    except tomllib.TOMLDecodeError:
        return {}
    project, server = _mapping(document.get("project")), command.partition(" ")[0]
    if server in dependencies(json.dumps(project.get("dependencies"))):
        return {}
    listed = {
        "extras": _mapping(project.get("optional-dependencies")),
        "groups": _mapping(document.get("dependency-groups")),
    }
    for key, found in listed.items():
        for name, packages in found.items():
            if server in dependencies(json.dumps(packages)):
                return {key: [name]}
    return {}


def _application(modules: Files, maker: str) -> tuple[str, str, bool] | None:
    """Find `module:variable` (or `module:factory()`) of an application.

    Also returns its module's text, and whether the module is below `src`.
    """

    def found(module: str, variable: str, text: str) -> tuple[str, str, bool]:
        path = module.removeprefix("src/").replace("/", ".")
        return f"{path}:{variable}", text, module.startswith("src/")

    made = rf"^(\w+)\s*(?::[^=\n]+)?=\s*(?:{maker}|(?:\w+\.)?create_app)\("
    for module, text in modules.items():
        if match := re.search(made, text, re.M):
            return found(module, match[1], text)
    for module, text in modules.items():
        if re.search(r"^def create_app\(", text, re.M):
            return found(module, "create_app()", text)
    return None


def _served(framework: str, application: str, known: set[str]) -> Program:
    quoted = f"'{application}'" if "(" in application else application
    if framework == "flask":
        if "gunicorn" in known:
            return Program("web", f"gunicorn --threads {THREADS} {quoted}")
        note = "command: Flask's own server is for development; add gunicorn to the dependencies."
        return Program("web", f"flask --app {quoted} run --port $PORT", notes=[note])
    notes = []
    if not known & {"uvicorn", "fastapi-cli"}:
        notes = ["command: add uvicorn to the dependencies."]
    factory = "--factory " if "(" in application else ""
    named = application.removesuffix("()")
    return Program("web", f"uvicorn {factory}{named} --port $PORT", notes=notes)


def _django(manage: str, known: set[str]) -> list[Program]:
    match = re.search(r"""DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""", manage)
    package = match[1].split(".")[0] if match else ""
    migrate = Program("job", "python manage.py migrate --noinput", suffix="migrate")
    if package and "gunicorn" in known:
        return [Program("web", f"gunicorn --threads {THREADS} {package}.wsgi"), migrate]
    note = "command: Django's own server is for development; add gunicorn to the dependencies."
    served = Program("web", "python manage.py runserver --noreload 127.0.0.1:$PORT", notes=[note])
    return [served, migrate]


def _node(here: Files, has_command: bool) -> list[Program]:
    package = _mapping(_json(here["package.json"]))
    scripts = _mapping(package.get("scripts"))
    known = {n for k in ("dependencies", "devDependencies") for n in _mapping(package.get(k))}
    start = scripts.get("start")
    serves = bool(known & set(_SERVERS))
    builds = "build" in scripts
    if "next" in known:
        config = "".join(t for n, t in here.items() if n.startswith("next.config"))
        if re.search(r"""output:\s*["']export["']""", config):
            return [Program("static", static="out")]
        return [_next(here, config)]
    if "@sveltejs/kit" in known:
        return _sveltekit(known)
    if "angular.json" in here and builds:
        output = _angular(here["angular.json"])
        if "@angular/ssr" in known and output.endswith("/browser"):
            server = output.removesuffix("browser") + "server/server.mjs"
            return [Program("web", f"node {server}", answers_root=True)]
        return [Program("static", static=output)]
    site = next((folder for tool, folder in _SITES.items() if tool in known), None)
    if site and builds and not (serves and start):
        config = "".join(t for n, t in here.items() if n.startswith("vite.config"))
        match = re.search(r"""outDir:\s*["']([\w./-]+)["']""", config)
        return [Program("static", static=match[1] if match else site)]
    if isinstance(start, str) and start.strip() and not has_command:
        command = start if start.startswith("node ") else "npm start"
        notes = [] if serves else ["command: it must listen on 127.0.0.1:$PORT."]
        text = "\n".join(t for n, t in here.items() if SCRIPTS.fullmatch(n))
        answers = re.search(r"""\.get\(\s*["'`]/["'`]""", text)
        health = _health(text)
        return [Program("web", command, health=health, answers_root=bool(answers), notes=notes)]
    return []


def _next(here: Files, config: str) -> Program:
    """Return the server of a Next.js application.

    Its standalone output lacks the static files. Source: nextjs.org, next.config.js, output.
    """
    answers = any(re.fullmatch(r"(src/)?(app/page|pages/index)\.\w+", name) for name in here)
    if not re.search(r"""output:\s*["']standalone["']""", config):
        command = "npx next start --hostname $HOST --port $PORT"
        return Program("web", command, answers_root=answers)
    run = "cp -r .next/static .next/standalone/.next/"
    run += " && if [ -d public ]; then cp -r public .next/standalone/; fi"
    return Program("web", "node .next/standalone/server.js", run=run, answers_root=answers)


def _dockerfile_notes(text: str) -> list[str]:
    notes = [
        "dockerfile: no Python or Node.js source found, so it runs as a container: on a "
        "machine with Docker or Podman, or on Kubernetes (`production` below)."
    ]
    if not re.search(r"^\s*USER\s+[1-9]\d*", text, re.M | re.I):
        notes.append("dockerfile: it needs a numeric `USER` other than 0, or `user:` here.")
    return notes


def _sveltekit(known: set[str]) -> list[Program]:
    """Return what the adapter of a SvelteKit application makes; others need a platform."""
    if "@sveltejs/adapter-static" in known:
        return [Program("static", static="build")]
    if "@sveltejs/adapter-node" in known:
        return [Program("web", "node build")]
    return []


def _angular(text: str) -> str:
    """Return the output folder of the first project. Source: angular.dev, workspace config."""
    projects = _mapping(_mapping(_json(text)).get("projects"))
    name = next(iter(projects), "app")
    build = _mapping(_mapping(_mapping(projects.get(name)).get("architect")).get("build"))
    output = _mapping(build.get("options")).get("outputPath", f"dist/{name}")
    if isinstance(output, dict):
        return "/".join(
            str(output.get(k, d)) for k, d in (("base", "dist"), ("browser", "browser"))
        )
    folder = "" if str(build.get("builder", "")).endswith(":browser") else "/browser"
    return f"{output}{folder}"


def _with_procfile(found: list[Program], procfile: dict[str, str]) -> list[Program]:
    """Prefer the commands of a Procfile to guesses; `release` becomes a job."""
    result = [p for p in found if p.kind == "static" or (p.kind == "web" and "web" not in procfile)]
    for name, command in procfile.items():
        if name == "web":
            old = next((p for p in found if p.kind == "web"), Program("web"))
            result.append(Program("web", command, health=old.health))
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
    words = _json(found[-1]) if found[-1].startswith("[") else None
    if isinstance(words, list) and words and all(isinstance(w, str) for w in words):
        import shlex

        return shlex.join(words)
    return None if found[-1].startswith("[") else found[-1].strip()


def _health(text: str) -> str | None:
    match = re.search(r"""["'](/(?:[\w-]+/)*(?:healthz?|livez|readyz))["']""", text)
    return match[1] if match else None


def _databases(here: Files) -> list[str]:
    known = _python_dependencies(here)
    known |= set(_mapping(_mapping(_json(here.get("package.json", ""))).get("dependencies")))
    return sorted({kind for package, kind in _DATABASES.items() if package in known})


def _is_collection(here: Files) -> bool:
    """Return whether the manifest only configures tools or workspaces."""
    text = here.get("package.json", "")
    return "workspaces" in _mapping(_json(text)) or "[project]" not in here.get(
        "pyproject.toml", "[project]"
    )


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return {}


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
