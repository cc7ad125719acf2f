"""References from a variable to a part of a resource: `${db.host}` in an `env` value.

A service that wants host, port and password apart, and not as one URL, says so in `env`. What looks
like a reference but names no part (`${HOME}`, `${a.b.c}`) is plain text: only a name, a dot and a
word in braces are one. On a machine the parts come from the resource's URL; on a cluster they are
the Service's name, a key of its Secret, and so on, so a password is in no file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import unquote, urlsplit

PARTS = ("host", "port", "user", "password", "database", "url")
PORTS = {"mongodb": 27017, "mysql": 3306, "redis": 6379, "postgres": 5432}
"""The usual port of each kind of resource, where a URL names none."""
_REFERENCE = re.compile(r"\$\{([a-z][a-z0-9-]*)\.([A-Za-z_]+)\}")


def references(text: str) -> Iterator[tuple[str, str]]:
    """The resource and the part of each reference in a text, in order."""
    for found in _REFERENCE.finditer(text):
        yield found[1], found[2]


def pieces(text: str) -> Iterator[str | tuple[str, str]]:
    """A text as plain pieces and (resource, part) pairs, in order; no piece is empty."""
    end = 0
    for found in _REFERENCE.finditer(text):
        if found.start() > end:
            yield text[end : found.start()]
        yield found[1], found[2]
        end = found.end()
    if end < len(text):
        yield text[end:]


def expand(text: str, part: Callable[[str, str], str]) -> str:
    """The text with each reference replaced by what `part(resource, part)` says."""
    return _REFERENCE.sub(lambda found: part(found[1], found[2]), text)


def part_of(url: str, kind: str, part: str) -> str:
    """A part of a resource's URL; empty where the URL does not say it."""
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
