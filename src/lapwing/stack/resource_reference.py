"""References to a part of a resource in an `env` value, such as `${db.host}`.

A service that reads host, port and password separately, instead of one URL, uses them. Only a name,
a dot and a word in braces is a reference; `${HOME}` and `${a.b.c}` are plain text. On a machine the
parts come from the resource's URL; on Kubernetes they are the Service's name, a key of its Secret,
and so on, so no manifest contains a password.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import unquote, urlsplit

PARTS = ("host", "port", "user", "password", "database", "url")
PORTS = {"mongodb": 27017, "mysql": 3306, "redis": 6379, "postgres": 5432}
"""The default port of each kind of resource."""
_REFERENCE = re.compile(r"\$\{([a-z][a-z0-9-]*)\.([A-Za-z_]+)\}")


def references(text: str) -> Iterator[tuple[str, str]]:
    """Yield the resource and the part of each reference in a text, in order."""
    for found in _REFERENCE.finditer(text):
        yield found[1], found[2]


def pieces(text: str) -> Iterator[str | tuple[str, str]]:
    """Split a text into plain pieces and (resource, part) pairs; no piece is empty."""
    end = 0
    for found in _REFERENCE.finditer(text):
        if found.start() > end:
            yield text[end : found.start()]
        yield found[1], found[2]
        end = found.end()
    if end < len(text):
        yield text[end:]


def expand(text: str, part: Callable[[str, str], str]) -> str:
    """Replace each reference in a text by the result of `part(resource, part)`."""
    return _REFERENCE.sub(lambda found: part(found[1], found[2]), text)


def part_of(url: str, kind: str, part: str) -> str:
    """Return a part of a resource's URL, or empty text if the URL lacks it."""
    if part == "url":
        return url
    split = urlsplit(url)
    found = {
        "host": split.hostname,
        "port": str(split.port or PORTS[kind]),
        "user": unquote(split.username or ""),
        "password": unquote(split.password or ""),
        "database": split.path.lstrip("/"),
    }
    return found[part] or ""


def variable_of(name: str) -> str:
    """Return the default URL variable of a resource, or of a service that a job runs after."""
    return name.upper().replace("-", "_") + "_URL"
