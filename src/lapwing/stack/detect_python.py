"""Detect the programs of a folder of Python source: Flask, FastAPI, Starlette, Django."""

from __future__ import annotations

import json
import re
import tomllib

from lapwing.stack import detect_routes
from lapwing.stack.program import Files, Program, dependencies, mapping

MANIFESTS = ("pyproject.toml", "requirements.txt", "Pipfile", "setup.py")
_FRAMEWORKS = {"flask": "Flask", "fastapi": "FastAPI", "starlette": "Starlette"}
THREADS = 8
"""Threads of a gunicorn worker: without any, one slow request occupies the whole worker."""


def python_programs(here: Files, packages: Files, has_command: bool) -> list[Program]:
    """Detect the programs of a folder of Python; `packages` are modules by import path."""
    known = python_dependencies(here)
    modules = {n.removesuffix(".py"): t for n, t in here.items() if n.endswith(".py")}
    modules |= packages
    if "django" in known and "manage.py" in here:
        return _django(here["manage.py"], packages, known)
    for framework, maker in _FRAMEWORKS.items():
        if framework in known and (place := _application(modules, maker)):
            program = _served(framework, place[0], known)
            if "requirements.txt" not in here:
                program.parts = _parts(here.get("pyproject.toml", ""), program.command or "")
            others = [text for text in modules.values() if text != place[1]]
            routes = detect_routes.of_python(place[1], others)
            program.health, program.smoke = (
                detect_routes.health(routes),
                detect_routes.smoke(routes),
            )
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


def python_dependencies(here: Files) -> set[str]:
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
    project, server = mapping(document.get("project")), command.partition(" ")[0]
    if server in dependencies(json.dumps(project.get("dependencies"))):
        return {}
    listed = {
        "extras": mapping(project.get("optional-dependencies")),
        "groups": mapping(document.get("dependency-groups")),
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


def _django(manage: str, packages: Files, known: set[str]) -> list[Program]:
    match = re.search(r"""DJANGO_SETTINGS_MODULE["'],\s*["']([\w.]+)["']""", manage)
    package = match[1].split(".")[0] if match else ""
    health = detect_routes.of_django(packages.get(f"{package}/urls", ""))
    migrate = Program("job", "python manage.py migrate --noinput", suffix="migrate")
    if package and "gunicorn" in known:
        command = f"gunicorn --threads {THREADS} {package}.wsgi"
        return [Program("web", command, health=health), migrate]
    note = "command: Django's own server is for development; add gunicorn to the dependencies."
    command = "python manage.py runserver --noreload 127.0.0.1:$PORT"
    return [Program("web", command, health=health, notes=[note]), migrate]
