"""The bill of materials of a release, as CycloneDX JSON. Pure.

One component for each service, with what its lock file names below it, and the images that the
stack uses. The same commit gives the same bytes: the time is the commit's, the serial number is
made from the name, the version and the commit. Source: the CycloneDX 1.6 JSON schema.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from lapwing import __version__
from lapwing.release.components import Component

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:lapwing:sbom")


def sbom(
    name: str,
    version: str,
    commit: tuple[str, int],
    services: Mapping[str, Sequence[Component]],
    images: Sequence[Component] = (),
) -> bytes:
    """The document. `commit` is its name and its time in seconds since 1970; `services` are what
    each is made of."""
    sha, seconds = commit
    root = f"{name}@{version}"
    parts: dict[str, dict[str, Any]] = {}
    edges: dict[str, list[str]] = {root: []}
    for service, below in services.items():
        reference = f"{root}#{service}"
        parts[reference] = {
            "type": "application",
            "bom-ref": reference,
            "name": service,
            "version": version,
        }
        edges[root].append(reference)
        edges[reference] = [c.purl for c in below]
        parts |= {c.purl: _component(c) for c in below}
    parts |= {c.purl: _component(c) for c in images}
    edges[root] += [c.purl for c in images]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{root}:{sha}')}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "tools": {
                "components": [{"type": "application", "name": "lapwing", "version": __version__}]
            },
            "component": {
                "type": "application",
                "bom-ref": root,
                "name": name,
                "version": version,
                "properties": [{"name": "lapwing:commit", "value": sha}],
            },
        },
        "components": list(parts.values()),
        "dependencies": [
            {"ref": ref, **({"dependsOn": sorted(set(below))} if below else {})}
            for ref, below in edges.items()
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n"


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
