"""What a registry stores for an image. Only manifests and configs are read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from lapwing.errors import RegistryError
from lapwing.registry.layout import Layout, blobs_of
from lapwing.registry.manifest import Descriptor, Manifest, Platform, select_platforms
from lapwing.registry.pull import BlobVerifier, verified
from lapwing.registry.referrers import find_referrers
from lapwing.registry.repository import Repository
from lapwing.registry.response import MAX_MANIFEST_BYTES


async def inspect_image(
    source: Repository, reference: str, platforms: Sequence[Platform] = ()
) -> dict[str, Any]:
    """Describe the image at a tag or digest; of an index, one platform if it is given.

    Raises RegistryError if it does not exist or cannot be read.
    """
    root = await source.manifest(reference)
    if platforms and root.is_index:
        child = select_platforms(root, platforms)[0]
        root = await source.manifest(child.digest, child.size)
    elif platforms:
        await check_platform(source, root, platforms)
    found = await find_referrers(source, root.digest)
    return {
        "name": str(source),
        "digest": root.digest,
        "media_type": root.media_type,
        "size": len(root.raw) + sum(blob.size for blob in root.blobs),
        "annotations": dict(root.annotations or {}),
        "platforms": [
            {"platform": str(c.platform), "digest": c.digest, "size": c.size}
            for c in root.children
            if c.platform and c.platform.is_known
        ],
        "layers": [
            {"digest": b.digest, "size": b.size, "media_type": b.media_type} for b in root.layers
        ],
        "config": await _config(source, root),
        "referrers": [
            *({"digest": d.digest, "artifact_type": d.artifact_type} for d in found.descriptors),
            *({"tag": tag} for tag in found.tags),
        ],
    }


async def check_platform(
    source: Repository | Layout, root: Manifest, wanted: Sequence[Platform]
) -> None:
    """Raise RegistryError if an image without an index is not for every platform of `wanted`."""
    config = await read_config(source, root) or {}
    parts = (config.get(key) or "" for key in ("os", "architecture", "variant"))
    found = Platform(*map(str, parts))
    for platform in wanted:
        if not found.matches(platform):
            raise RegistryError(
                f"{source}@{root.digest} is an image for {found}, not for {platform}."
                if found.is_known
                else f"{source}@{root.digest} does not state its platform.",
                hint="Omit --platform to use it nevertheless.",
            )


async def read_config(source: Repository | Layout, root: Manifest) -> dict[str, Any] | None:
    """Read the configuration of an image; None if its manifest names none that is JSON.

    Raises RegistryError if it cannot be read.
    """
    config = root.config
    if config is None or not config.media_type.endswith("json"):
        return None
    if config.size > MAX_MANIFEST_BYTES:
        raise RegistryError(
            f"The config of {source} has {config.size} bytes; the limit is {MAX_MANIFEST_BYTES}."
        )
    raw = await read_blob(source, config)
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RegistryError(f"The config of {source} is not valid JSON.") from error
    return found if isinstance(found, dict) else None


async def read_blob(source: Repository | Layout, blob: Descriptor) -> bytes:
    """Read a blob into memory; the caller checks its size. Raises RegistryError."""
    blobs, raw = blobs_of(source), bytearray()
    verifier = BlobVerifier(blob.digest, blob.size, str(source), blobs.remedy(blob.digest))
    async for data in verified(blobs.read(verifier, 0), verifier):
        raw += data
    return bytes(raw)


async def _config(source: Repository, root: Manifest) -> dict[str, Any] | None:
    """Return the settings in the config for running the image; None without a config."""
    found = await read_config(source, root)
    if found is None:
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
