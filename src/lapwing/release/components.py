"""What a service is made of, by its lock file, for the SBOM. Pure: texts in, components out.

Read are the lock files that a build uses: uv.lock, requirements.txt (what it pins with `==`, and
the files it includes) and package-lock.json (version 2 and 3). A package has the name that the
package URL specification gives it. Source: purl-spec, types `pypi` (lower case, `-` for `_`),
`npm` (the scope percent-encoded), `docker`.
"""

from __future__ import annotations

import base64
import binascii
import json
import posixpath
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from lapwing.errors import ReleaseError
from lapwing.stack.image import HUB, Reference

_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*===?\s*([A-Za-z0-9.!+_-]+)")
_INCLUDE = re.compile(r"(?:-r|--requirement)(?:\s+|=)?(\S+)")

Read = Callable[[str], str | None]
"""The text of a file of a service's folder, by its name; None if there is none."""


@dataclass(frozen=True, slots=True, order=True)
class Component:
    """A package or an image. `sha512` is hexadecimal, where the lock file has it."""

    purl: str
    name: str
    version: str
    sha512: str | None = None
    container: bool = False


def components(read: Read) -> list[Component]:
    """What the lock files of a folder name, in order and each once.

    Raises ReleaseError for a lock file that cannot be read.
    """
    found: set[Component] = set()
    for name, parse in _READERS.items():
        text = read(name)
        if text is None:
            continue
        try:
            found |= set(parse(text, read))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReleaseError(
                f"{name} cannot be read for the SBOM.",
                hint="Is it whole? Make it again.",
                detail=str(error),
            ) from error
        if name in _PYTHON:
            read = _without(read, _PYTHON)
    return sorted(found)


def image(reference: Reference) -> Component:
    """An image as a component."""
    name = reference.repository.removeprefix("library/")
    version = reference.digest or reference.tag or ""
    where = "" if reference.registry == HUB else f"?repository_url={quote(reference.registry)}"
    purl = f"pkg:docker/{name}@{quote(version, safe='')}{where}"
    return Component(purl, reference.repository, version, container=True)


def _uv(text: str, _: Read) -> Iterator[Component]:
    for package in tomllib.loads(text).get("package", []):
        source = package.get("source", {})
        if "version" in package and not {"editable", "virtual"} & set(source):
            yield _pypi(package["name"], package["version"])


def _requirements(text: str, read: Read, at: str = "requirements.txt") -> Iterator[Component]:
    seen, waiting = {at}, [(at, text)]
    while waiting:
        name, content = waiting.pop()
        for line in content.replace("\\\n", " ").splitlines():
            stripped = line.split(" #")[0].strip()
            included = _INCLUDE.match(stripped)
            if included:
                other = posixpath.normpath(posixpath.join(posixpath.dirname(name), included[1]))
                found = read(other)
                if found is not None and other not in seen:
                    seen.add(other)
                    waiting.append((other, found))
                continue
            pinned = _PIN.match(stripped)
            if pinned:
                yield _pypi(pinned[1], pinned[2])


def _npm(text: str, _: Read) -> Iterator[Component]:
    data = json.loads(text)
    for path, package in data.get("packages", {}).items():
        if not path.startswith("node_modules/") and "/node_modules/" not in path:
            continue  # The project itself, and its own workspaces.
        if package.get("link") or package.get("dev") or "version" not in package:
            continue
        name = package.get("name") or path.rpartition("node_modules/")[2]
        purl = f"pkg:npm/{quote(name, safe='/')}@{quote(package['version'], safe='')}"
        yield Component(purl, name, package["version"], _sha512(package.get("integrity")))


def _pypi(name: str, version: str) -> Component:
    bare = re.sub(r"[-_.]+", "-", name).lower()
    return Component(f"pkg:pypi/{bare}@{quote(version, safe='')}", bare, version)


def _sha512(integrity: Any) -> str | None:
    """The digest in an npm `integrity`, which is base64."""
    for part in integrity.split() if isinstance(integrity, str) else ():
        kind, _, encoded = part.partition("-")
        if kind == "sha512":
            try:
                return base64.b64decode(encoded, validate=True).hex()
            except binascii.Error:
                return None
    return None


def _without(read: Read, names: Iterable[str]) -> Read:
    """The same folder without some of its files: the most exact lock file is enough."""
    hidden = set(names)
    return lambda name: None if name in hidden else read(name)


_PYTHON = ("uv.lock", "requirements.txt")
_READERS: dict[str, Callable[[str, Read], Iterator[Component]]] = {
    "uv.lock": _uv,
    "requirements.txt": _requirements,
    "package-lock.json": _npm,
}
