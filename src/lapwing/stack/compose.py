"""Read a Compose file for `lapwing init`: databases, and which folder uses which.

The file format: https://github.com/compose-spec/compose-spec/blob/main/spec.md. Values of variables
are not copied, since they often are passwords; only the name of one that holds a database URL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_IMAGES = {"mongo": "mongodb", "mysql": "mysql", "mariadb": "mysql", "redis": "redis",
           "valkey": "redis", "postgres": "postgres", "postgresql": "postgres",
           "postgis": "postgres", "timescaledb": "postgres", "timescaledb-ha": "postgres",
           "pgvector": "postgres", "redis-stack": "redis", "redis-stack-server": "redis",
           "percona": "mysql", "percona-server": "mysql", "mysql-server": "mysql",
           "mongodb": "mongodb", "mongodb-community-server": "mongodb",
           "percona-server-mongodb": "mongodb"}  # fmt: skip
"""Database kind by the last part of an image's name."""


@dataclass(frozen=True, slots=True)
class FoundResource:
    """A database or cache. `variable` is the variable that programs read its URL from."""

    name: str
    kind: str
    version: str | None = None
    variable: str | None = None


@dataclass(slots=True)
class Composed:
    """Services of a Compose file; `names` and `needs` are by build folder."""

    resources: list[FoundResource] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    needs: dict[str, list[str]] = field(default_factory=dict)


def read(files: Mapping[str, str], notes: list[str]) -> Composed:
    """Read the Compose file of the top folder, if there is one. Appends to the notes."""
    composed = Composed()
    file = next((n for n in _NAMES if n in files), None)
    if file is None:
        return composed
    services = _services(files[file])
    if services is None:
        notes.append(f"{file}: not a valid Compose file; ignored.")
        return composed
    for name, service in services.items():
        resource = _resource(name, service, services)
        if resource is not None:
            composed.resources.append(resource)
        elif (folder := _folder(service)) is not None:
            composed.names[folder] = name
            depends = service.get("depends_on")
            listed = depends if isinstance(depends, list | dict) else []
            composed.needs[folder] = [_name(str(d)) for d in listed]
        elif "image" in service:
            notes.append(f"{file}: `{name}` uses the image {service['image']}; ignored.")
    return composed


def _services(text: str) -> dict[str, dict[str, Any]] | None:
    import yaml

    if len(re.findall(r"[*]\w", text)) > 50:  # aliases may multiply
        return None
    try:
        data = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    services = data.get("services") if isinstance(data, dict) else None
    if not isinstance(services, dict):
        return None
    return {str(n): s for n, s in services.items() if isinstance(s, dict)}


def _resource(
    name: str, service: dict[str, Any], services: dict[str, dict[str, Any]]
) -> FoundResource | None:
    image = str(service.get("image", ""))
    repository, _, tag = image.rpartition("/")[2].partition("@")[0].partition(":")
    kind = _IMAGES.get(repository)
    if kind is None or _name(name) == "":
        return None
    version = re.search(r"(?<=pg)\d+", tag) or re.match(r"\d+(\.\d+)*", tag)
    variable = next((v for s in services.values() if (v := _address(s, name))), None)
    return FoundResource(_name(name), kind, version[0] if version else None, variable)


def _address(service: dict[str, Any], host: str) -> str | None:
    """Return the variable of a service whose value is a URL with this host."""
    given = service.get("environment")
    pairs: list[tuple[Any, Any]] = []
    if isinstance(given, dict):
        pairs = list(given.items())
    elif isinstance(given, list):
        pairs = [(n, v) for n, _, v in (str(line).partition("=") for line in given)]
    for variable, value in pairs:
        is_name = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(variable))
        if is_name and re.search(rf"://([^/@]*@)?{re.escape(host)}([:/?]|$)", str(value)):
            return str(variable)
    return None


def _folder(service: dict[str, Any]) -> str | None:
    build = service.get("build")
    path = build.get("context") if isinstance(build, dict) else build
    return str(PurePosixPath(path)) if isinstance(path, str) and ".." not in path else None


def _name(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-").lstrip("0123456789-")[:40]
