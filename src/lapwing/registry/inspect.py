"""What a registry knows of an image, for people and programs; nothing but manifests and configs
is read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lapwing.errors import RegistryError
from lapwing.registry import manifest
from lapwing.registry.answers import SMALL
from lapwing.registry.manifest import Manifest, Platform
from lapwing.registry.pull import Pulled
from lapwing.registry.referrers import found_at
from lapwing.registry.repository import Repository
from lapwing.registry.tally import Tally, verified


async def inspect(
    source: Repository, reference: str, platforms: Sequence[Platform] = ()
) -> dict[str, Any]:
    """Describe the image at a tag or digest; of an index, one platform if it is named.

    Raises RegistryError if it is not there or cannot be read.
    """
    root = await source.manifest(reference)
    if platforms and root.is_index:
        child = manifest.narrow(root, platforms)[0]
        root = await source.manifest(child.digest, child.size)
    answer: dict[str, Any] = {
        "name": str(source),
        "digest": root.digest,
        "media_type": root.media_type,
        "size": len(root.raw) + sum(blob.size for blob in root.blobs),
        "annotations": dict(root.annotations or {}),
        "platforms": [
            {"platform": str(c.platform), "digest": c.digest, "size": c.size}
            for c in root.children
            if c.platform and c.platform.os not in ("", "unknown")
        ],
        "layers": [
            {"digest": b.digest, "size": b.size, "media_type": b.media_type} for b in root.layers
        ],
        "config": await _config(source, root),
    }
    found = await found_at(source, root.digest)
    answer["referrers"] = [
        {"digest": d.digest, "artifact_type": d.artifact_type} for d in found.attached
    ] + [{"tag": tag} for tag in found.tags]
    return answer


async def _config(source: Repository, root: Manifest) -> dict[str, Any] | None:
    """What the config says about running the image; None where there is none to read."""
    config = root.config
    if config is None or not config.media_type.endswith("json"):
        return None
    if config.size > SMALL:
        raise RegistryError(
            f"The config of {source} has {config.size} bytes; more than {SMALL} are not read."
        )
    tally = Tally(config.digest, config.size, str(source))
    raw = bytearray()
    async for piece in verified(Pulled(source).pieces(tally, 0), tally):
        raw += piece
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"The config of {source} is not valid JSON.") from error
    if not isinstance(found, dict):
        return None
    inner = found.get("config")
    inner = inner if isinstance(inner, dict) else {}
    return {
        "platform": "/".join(
            str(found[key]) for key in ("os", "architecture", "variant") if found.get(key)
        ),
        "created": found.get("created"),
        "user": inner.get("User") or None,
        "entrypoint": inner.get("Entrypoint"),
        "command": inner.get("Cmd"),
        "ports": sorted(inner.get("ExposedPorts") or {}),
        "labels": inner.get("Labels") or {},
    }
