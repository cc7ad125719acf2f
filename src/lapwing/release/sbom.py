"""The software bill of materials (SBOM) of a release, as CycloneDX JSON.

It has one component for each service, with the packages of its lock file below it, and the images
of the stack. Read are the lock files that a build uses: uv.lock, requirements.txt (what it pins
with `==`, and the files it includes) and package-lock.json (version 2 and 3). A requirements.txt
need not name what its packages need, so for an image the Python packages are those that its layers
have installed; without an image, the list of such a file is marked as possibly incomplete
(`compositions`). The same commit gives the same bytes: the time is the commit's, the serial number
is derived from name, version and commit. Why no library writes it: decision 0031.

Sources: the CycloneDX 1.6 JSON schema; the package URL specification, types `pypi` (lower case, `-`
for `_`), `npm` (the scope percent-encoded), `docker`; PEP 376 and 610 (installed packages); the OCI
image specification, "Whiteouts".
"""

from __future__ import annotations

import base64
import binascii
import json
import posixpath
import re
import tarfile
import tomllib
import uuid
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lapwing import __version__
from lapwing.build.artifact import FileBlob
from lapwing.errors import IntegrityError, ReleaseError
from lapwing.stack.image import HUB, Reference

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:lapwing:sbom")
_PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^\]]*\])?\s*===?\s*([A-Za-z0-9.!+_-]+)")
_ABOUT = re.compile(r"(.*-packages/[^/]+\.dist-info)/(METADATA|direct_url\.json)")
_REMOVED = re.compile(r"(.*-packages/)\.wh\.([^/]+\.dist-info)")
_LOCAL = re.compile(rb'"url"\s*:\s*"file:')
_INCLUDE = re.compile(r"(?:-r|--requirement)(?:\s+|=)?(\S+)")

PYPI = "pkg:pypi/"
"""The beginning of the package URL of a Python package."""
ReadFile = Callable[[str], str | None]
"""Returns the text of a file of a service's folder, by its name; None if there is none."""


@dataclass(frozen=True, slots=True, order=True)
class Component:
    """A package or an image. `sha512` is hexadecimal, where the lock file has it."""

    purl: str
    name: str
    version: str
    sha512: str | None = None
    container: bool = False


def read_components(read: ReadFile) -> list[Component]:
    """Return the packages in the lock files of a folder, sorted and each once.

    Raises ReleaseError for a lock file that cannot be parsed.
    """
    found: set[Component] = set()
    has_uv_lock = False
    for name, parse in _PARSERS.items():
        text = read(name)
        if text is None or (name == "requirements.txt" and has_uv_lock):
            continue  # uv.lock is the more exact one.
        has_uv_lock = has_uv_lock or name == "uv.lock"
        try:
            found |= set(parse(text, read))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ReleaseError(
                f"Cannot parse {name} for the SBOM.",
                hint="Generate the lock file again and commit it.",
                detail=str(error),
            ) from error
    return sorted(found)


def may_lack_packages(read: ReadFile) -> bool:
    """Return whether the lock files may leave out packages that are installed besides.

    pip requires a hash for each installed package where a file has one, so such a file has all.
    """
    text = read("requirements.txt")
    return text is not None and "--hash" not in text and read("uv.lock") is None


def installed_components(layers: Iterable[Path]) -> list[Component]:
    """Return the Python packages that the layers of an image install, sorted.

    A package that is installed from a folder is left out: it is the program. Raises IntegrityError
    if a layer is damaged.
    """
    found: dict[str, Component] = {}
    local: set[str] = set()
    for layer in layers:
        try:
            _read_layer(layer, found, local)
        except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
            remedy = FileBlob(layer, cached=True).remedy("")
            raise IntegrityError(f"A layer cannot be read: {error}.", hint=remedy) from error
    return sorted({each for folder, each in found.items() if folder not in local})


def _read_layer(layer: Path, found: dict[str, Component], local: set[str]) -> None:
    with tarfile.open(layer, "r|*") as archive:
        for member in archive:
            if removed := _REMOVED.fullmatch(member.name):
                found.pop("".join(removed.groups()), None)
            elif (about := _ABOUT.fullmatch(member.name)) and member.isfile():
                file = archive.extractfile(member)
                content = file.read() if file else b""
                if about[2] == "METADATA":
                    found[about[1]] = _parse_metadata(content)
                elif _LOCAL.search(content):
                    local.add(about[1])


def image_component(reference: Reference) -> Component:
    """Return an image as a component."""
    name = reference.repository.removeprefix("library/")
    version = reference.digest or reference.tag or ""
    where = "" if reference.registry == HUB else f"?repository_url={quote(reference.registry)}"
    purl = f"pkg:docker/{name}@{quote(version, safe='')}{where}"
    return Component(purl, reference.repository, version, container=True)


def sbom(
    name: str,
    version: str,
    commit: tuple[str, int],
    services: Mapping[str, Sequence[Component]],
    images: Sequence[Component] = (),
    incomplete: Collection[str] = (),
) -> bytes:
    """Write the document.

    `commit` is its name and its time in seconds since 1970; `services` are the packages of each,
    `incomplete` the services that may have more.
    """
    sha, seconds = commit
    root = f"{name}@{version}"
    components: dict[str, dict[str, Any]] = {}
    edges: dict[str, list[str]] = {root: []}
    for service, packages in services.items():
        reference = f"{root}#{service}"
        components[reference] = _application(service, version, reference)
        edges[root].append(reference)
        edges[reference] = [c.purl for c in packages]
        components |= {c.purl: _component(c) for c in packages}
    components |= {c.purl: _component(c) for c in images}
    edges[root] += [c.purl for c in images]
    metadata = {
        "timestamp": datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "tools": {"components": [_application("lapwing", __version__)]},
        "component": _application(name, version, root)
        | {"properties": [{"name": "lapwing:commit", "value": sha}]},
    }
    document: dict[str, Any] = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{root}:{sha}')}",
        "version": 1,
        "metadata": metadata,
        "components": list(components.values()),
        "dependencies": [
            {"ref": ref, **({"dependsOn": sorted(set(below))} if below else {})}
            for ref, below in edges.items()
        ],
    }
    if incomplete:
        lacking = [f"{root}#{service}" for service in sorted(incomplete)]
        document["compositions"] = [{"aggregate": "unknown", "dependencies": lacking}]
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


def _application(name: str, version: str, reference: str | None = None) -> dict[str, Any]:
    identity = {"bom-ref": reference} if reference else {}
    return {"type": "application", **identity, "name": name, "version": version}


def _component(component: Component) -> dict[str, Any]:
    described: dict[str, Any] = {
        "type": "container" if component.container else "library",
        "bom-ref": component.purl,
        "name": component.name,
        "version": component.version,
    }
    if component.sha512:
        described["hashes"] = [{"alg": "SHA-512", "content": component.sha512}]
    return described | {"purl": component.purl}


def _parse_uv_lock(text: str, _: ReadFile) -> Iterator[Component]:
    for package in tomllib.loads(text).get("package", []):
        source = package.get("source", {})
        if "version" in package and not {"editable", "virtual"} & set(source):
            yield _pypi(package["name"], package["version"])


def _parse_requirements(text: str, read: ReadFile) -> Iterator[Component]:
    first = "requirements.txt"
    seen, waiting = {first}, [(first, text)]
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
            elif pinned := _PIN.match(stripped):
                yield _pypi(pinned[1], pinned[2])


def _parse_metadata(content: bytes) -> Component:
    headers = BytesHeaderParser().parsebytes(content)
    return _pypi(str(headers["Name"]), str(headers["Version"]))


def _parse_npm_lock(text: str, _: ReadFile) -> Iterator[Component]:
    for path, package in json.loads(text).get("packages", {}).items():
        if not path.startswith("node_modules/") and "/node_modules/" not in path:
            continue  # The project itself, and its own workspaces.
        if package.get("link") or package.get("dev") or "version" not in package:
            continue
        name = package.get("name") or path.rpartition("node_modules/")[2]
        purl = f"pkg:npm/{quote(name, safe='/')}@{quote(package['version'], safe='')}"
        yield Component(purl, name, package["version"], _sha512(package.get("integrity")))


_PARSERS: dict[str, Callable[[str, ReadFile], Iterator[Component]]] = {
    "uv.lock": _parse_uv_lock,
    "requirements.txt": _parse_requirements,
    "package-lock.json": _parse_npm_lock,
}

LOCK_FILES = tuple(_PARSERS)
"""The lock files that are read."""


def _pypi(name: str, version: str) -> Component:
    bare = re.sub(r"[-_.]+", "-", name).lower()
    return Component(f"{PYPI}{bare}@{quote(version, safe='')}", bare, version)


def _sha512(integrity: Any) -> str | None:
    """Return the digest in an npm `integrity`, which is base64."""
    for part in integrity.split() if isinstance(integrity, str) else ():
        kind, _, encoded = part.partition("-")
        if kind == "sha512":
            try:
                return base64.b64decode(encoded, validate=True).hex()
            except binascii.Error:
                return None
    return None
