"""Read a Compose project for `lapwing init`: databases, and the services of each build folder.

`compose_files` loads and merges the files; here is what they mean for a stack file. Passwords are
not copied: a variable with the name or the value of a secret becomes an entry of `secrets`, and one
that holds a part of a database's address a reference, as in `${db.host}`. What cannot be taken over
becomes a note.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from lapwing.stack import detect_routes
from lapwing.stack.compose_files import Choice, build_folder, environment, load
from lapwing.stack.resource_reference import PORTS, variable_of
from lapwing.stack.variable_rules import is_reserved
from lapwing.system.secret_names import is_secret

_IMAGES = {"mongo": "mongodb", "mysql": "mysql", "mariadb": "mysql", "redis": "redis",
           "valkey": "redis", "keydb": "redis", "dragonfly": "redis", "postgres": "postgres",
           "postgresql": "postgres", "postgis": "postgres", "timescaledb": "postgres",
           "timescaledb-ha": "postgres", "pgvector": "postgres", "redis-stack": "redis",
           "redis-stack-server": "redis", "percona": "mysql", "percona-server": "mysql",
           "mysql-server": "mysql", "mongodb": "mongodb", "mongodb-community-server": "mongodb",
           "percona-server-mongodb": "mongodb"}  # fmt: skip
"""Database kind by the last part of an image's name."""
_COMPATIBLE = {"mariadb": "MariaDB", "valkey": "Valkey", "keydb": "KeyDB", "dragonfly": "Dragonfly"}
"""Images of other products than their kind: their versions say nothing about it."""
_PARTS = {"USER": "user", "USERNAME": "user", "PASSWORD": "password", "DB": "database",
          "DATABASE": "database", "ROOT_PASSWORD": "password"}  # fmt: skip
"""Part of a resource by the last words of the variables of the database images."""
_DATABASE_VARIABLE = re.compile(r"DB|DATABASE|SQL|POSTGRES|PG|MONGO|REDIS|MARIADB")


@dataclass(slots=True)
class FoundResource:
    """A database or cache. `variable` is the variable that programs read its URL from."""

    name: str
    kind: str
    version: str | None = None
    variable: str | None = None


@dataclass(slots=True)
class ComposeService:
    """A service that is built from a folder, as far as a stack file has the same."""

    name: str
    command: str | None = None
    published: bool = False
    needs: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    volumes: dict[str, str] = field(default_factory=dict)
    health: str | None = None
    resources: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Composed:
    """The content of a Compose project; `services` are by build folder.

    `left_out` are build folders of services in inactive profiles only.
    """

    resources: list[FoundResource] = field(default_factory=list)
    services: dict[str, list[ComposeService]] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)


def read(files: Mapping[str, str], notes: list[str], choice: Choice | None = None) -> Composed:
    """Read the Compose project of the top folder, if there is one. Appends to the notes."""
    composed = Composed()
    project = load(files, choice or Choice(), notes)
    if project is None:
        return composed
    services, file = project.services, project.file
    databases: dict[str, FoundResource] = {}
    for name, service in services.items():
        resource = _resource(name, service, services, notes)
        if resource is not None:
            databases[name] = resource
        elif build_folder(service) is None and "image" in service:
            notes.append(f"{file}: `{name}` uses the image {service['image']}; ignored.")
    composed.resources = list(databases.values())
    for name, service in services.items():
        if name not in databases and (folder := build_folder(service)) is not None:
            workdir = _workdir(files.get(str(PurePosixPath(folder, "Dockerfile")), ""))
            found = _service(name, service, services, databases, workdir)
            composed.services.setdefault(folder, []).append(found)
    inactive = (build_folder(service) for service in project.inactive.values())
    composed.left_out = {f for f in inactive if f is not None and f not in composed.services}
    return composed


def _resource(
    name: str, service: dict[str, Any], services: dict[str, dict[str, Any]], notes: list[str]
) -> FoundResource | None:
    image = str(service.get("image", ""))
    repository, _, tag = image.rpartition("/")[2].partition("@")[0].partition(":")
    kind = _IMAGES.get(repository)
    if kind is None or _name(name) == "":
        return None
    version = re.search(r"(?<=pg)\d+", tag) or re.match(r"\d+(\.\d+)*", tag)
    if repository in _COMPATIBLE:
        notes.append(f"resources: `{name}` was {_COMPATIBLE[repository]}, here it is {kind}.")
        version = None
    used = (v for s in services.values() for v, text in _environment(s) if _has_host(text, name))
    return FoundResource(_name(name), kind, version[0] if version else None, next(used, None))


def _service(
    name: str,
    service: dict[str, Any],
    services: Mapping[str, dict[str, Any]],
    databases: Mapping[str, FoundResource],
    workdir: PurePosixPath,
) -> ComposeService:
    found = ComposeService(name, _command(service), bool(service.get("ports")))
    depends = service.get("depends_on")
    depends = list(depends) if isinstance(depends, list | dict) else []
    values = [value for _, value in _environment(service)]
    used = {n: d for n, d in databases.items() if n in depends or any(_is_at(v, n) for v in values)}
    found.needs = [database.name for database in used.values()]
    for variable, value in _environment(service):
        if not is_reserved(variable):
            reference = _reference(variable, value, used, services)
            if reference:
                found.env[variable] = reference
            elif reference is None:
                _take_variable(found, variable, value, services)
    if service.get("env_file"):
        found.notes.append(
            "env: `env_file` is not copied. If the file is committed and has no secrets, add "
            "`env_file` to the service."
        )
    listed = service.get("volumes")
    for volume in listed if isinstance(listed, list) else []:
        _take_volume(found, volume, workdir)
    _take_health(found, service.get("healthcheck"))
    _take_limits(found, service)
    return found


def _take_health(found: ComposeService, check: object) -> None:
    """Take the path of the URL that a health check requests."""
    if not isinstance(check, dict) or check.get("disable") or not check.get("test"):
        return
    test = check["test"]
    text = " ".join(map(str, test)) if isinstance(test, list) else str(test)
    path = detect_routes.of_command(text)
    if path and found.published:
        found.health = path
    elif text != "NONE":
        found.notes.append(f"health: `healthcheck` of Compose is not copied: {_line(text)}")


def _take_limits(found: ComposeService, service: Mapping[str, Any]) -> None:
    """Take the limits of memory and CPU: with `deploy: resources: limits`, or the older keys."""
    limits: Any = service.get("deploy")
    for key in ("resources", "limits"):
        limits = limits.get(key) if isinstance(limits, dict) else None
    limits = limits if isinstance(limits, dict) else {}
    memory, cpus = (
        limits.get("memory", service.get("mem_limit")),
        limits.get("cpus", service.get("cpus")),
    )
    for key, value, pattern in (
        ("memory", memory, r"(\d+(?:\.\d+)?) ?(?:([kmgtp])(?:i?b)?|b)?"),
        ("cpu", cpus, r"(\d*\.?\d+)"),
    ):
        if value is None:
            continue
        match = re.fullmatch(pattern, str(value).strip(), re.IGNORECASE)
        if match is None:
            found.notes.append(f"resources: the limit {_line(str(value))} of {key} is not copied.")
        elif float(match[1]) == 0:
            continue  # No limit.
        elif key == "cpu":
            found.resources["cpu"] = f"{max(1, round(float(match[1]) * 1000))}m"
        else:
            size = float(match[1]) * 1024 ** " kmgtp".index((match[2] or " ").lower())
            found.resources["memory"] = f"{max(1, round(size / 2**20))}Mi"


def _line(text: str) -> str:
    """Text on one line, for a comment."""
    return " ".join(text.split())[:100]


def _reference(
    variable: str,
    value: str,
    used: Mapping[str, FoundResource],
    services: Mapping[str, dict[str, Any]],
) -> str | None:
    """Return a value with references to the database that it is a part of the address of.

    Empty text if Lapwing sets the variable anyway; None if it has nothing of a database.
    """
    for name, database in used.items():
        parts = {text: _PARTS[end] for v, text in _environment(services[name])
                 if (end := v.partition("_")[2]) in _PARTS and text}  # fmt: skip
        if _has_host(value, name):
            is_own = variable == (database.variable or variable_of(database.name))
            return "" if is_own else f"${{{database.name}.url}}"
        if host := re.fullmatch(rf"{re.escape(name)}(:\d+)?", value):
            return f"${{{database.name}.host}}" + f":${{{database.name}.port}}" * bool(host[1])
        if "PORT" in variable and value == str(PORTS[database.kind]):
            return f"${{{database.name}.port}}"
        if value in parts and _DATABASE_VARIABLE.search(variable):
            return f"${{{database.name}.{parts[value]}}}"
    return None


def _take_variable(
    found: ComposeService, variable: str, value: str, services: Mapping[str, dict[str, Any]]
) -> None:
    """Copy a variable, unless it is a secret or only has a meaning for Compose."""
    default = re.fullmatch(r"\$\{\w+:?-([^}]*)\}", value)
    text = default[1] if default else value
    if is_secret(variable, text or variable):  # The value may be in the shell of the user.
        found.secrets.append(variable)
    elif any(_is_at(text, other) for other in services):
        found.notes.append(
            f"env: {variable} contains the address of another service; use that service's route."
        )
    elif "$" in text.replace("$$", "") or not text:
        found.notes.append(f"env: {variable} has no value here; add it to `env` or `secrets`.")
    else:
        found.env[variable] = text.replace("$$", "$")


def _take_volume(found: ComposeService, volume: object, workdir: PurePosixPath) -> None:
    """Take over a volume below the working folder; one of the source itself is for development."""
    if isinstance(volume, dict):
        source, target = str(volume.get("source", "")), str(volume.get("target", ""))
    else:
        source, _, rest = str(volume).partition(":")
        target = rest.partition(":")[0]
    path = PurePosixPath(target)
    if not source or source.startswith("/") or path == workdir or "node_modules" in path.parts:
        return
    is_folder = not source.startswith(".") or not PurePosixPath(source).suffix
    if path.is_relative_to(workdir) and is_folder and workdir.name:
        name = path.name if source.startswith(".") else source
        found.volumes[_name(name) or "data"] = f"./{path.relative_to(workdir)}"
    else:
        found.notes.append(
            f"volumes: {target} is outside the source folder; not added to lapwing.yaml."
        )


def _environment(service: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The variables of a service; one without a value is empty text."""
    for variable, value in environment(service).items():
        if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", variable):
            written = str(value).lower() if isinstance(value, bool) else str(value)
            yield variable, "" if value is None else written


def _has_host(value: str, host: str) -> bool:
    """Whether a value is a URL with this host."""
    return re.search(rf"://([^/@]*@)?{re.escape(host)}([:/?]|$)", value) is not None


def _is_at(value: str, host: str) -> bool:
    """Whether a value is this host, with or without a port, or a URL with it."""
    return _has_host(value, host) or re.fullmatch(rf"{re.escape(host)}(:\d+)?", value) is not None


def _command(service: Mapping[str, Any]) -> str | None:
    command = service.get("command")
    words = shlex.join(map(str, command)) if isinstance(command, list) else command
    return " ".join(words.split()).replace("$$", "$") or None if isinstance(words, str) else None


def _workdir(dockerfile: str) -> PurePosixPath:
    """The working folder of an image; without a Dockerfile, the one that most have."""
    found = re.findall(r"^\s*WORKDIR\s+(\S+)", dockerfile, re.M | re.I)
    return PurePosixPath(found[-1] if found else "/app")


def _name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-").lstrip("0123456789-")[:40]
