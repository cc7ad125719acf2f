"""Add layers of hashed files to an image in a registry, without a build or an upload of layers.

    image by digest + layers of other releases -> configurations and manifests -> image

After a rollback, browsers still run the pages of the release that was rolled back. The hashed files
of that release are in a layer of its image, so the image of the older release gets a second
configuration and manifest that include this layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lapwing.build.image.base import empty_base
from lapwing.build.image.builder import Image, PlatformImage, index_of
from lapwing.build.image.config import CREATED_BY, encode
from lapwing.build.image.hashed_files import ANNOTATION, select
from lapwing.build.image.layer import Layer
from lapwing.registry.client import RegistryClient
from lapwing.registry.inspect import read_config
from lapwing.registry.manifest import Manifest, Platform
from lapwing.registry.repository import Repository
from lapwing.stack.image import Reference


async def extend_image(
    client: RegistryClient,
    reference: Reference,
    earlier: Sequence[Layer],
    service: str,
    revision: str,
) -> Image | None:
    """Return an image with the layers of `earlier` (newest first) that it does not have yet.

    None if it has all of them, or was not built by Lapwing. Raises RegistryError.
    """
    repository = client.repository(reference)
    root = await repository.manifest(reference.wanted)
    parts = [await repository.manifest(c.digest, c.size) for c in root.children] or [root]
    images = []
    for part in parts:
        extended = await _extend(repository, reference, part, earlier)
        if extended is None:
            return None
        images.append(extended)
    made = index_of(images) if root.is_index else images[0].manifest
    base = empty_base(tuple(each.platform for each in images))
    return Image(service, revision, base, made, tuple(images))


async def _extend(
    repository: Repository, reference: Reference, manifest: Manifest, earlier: Sequence[Layer]
) -> PlatformImage | None:
    config: dict[str, Any] = await read_config(repository, manifest) or {}
    history = config.get("history") or [{}]
    if history[-1].get("created_by") != CREATED_BY:
        return None
    ids = config["rootfs"]["diff_ids"]
    layers = [Layer(d, i, reference) for d, i in zip(manifest.layers, ids, strict=True)]
    more = select(earlier, layers)
    if not more:
        return None
    annotated = (n for n, d in enumerate(manifest.layers) if ANNOTATION in (d.annotations or {}))
    position = next(annotated, len(layers) - 1)  # Below the files of the release.
    layers[position:position] = more
    config["rootfs"]["diff_ids"] = [layer.diff_id for layer in layers]
    config["history"] = [*history, *history[-1:] * len(more)]
    platform = Platform(config["os"], config["architecture"], config.get("variant", ""))
    return PlatformImage.of(platform, encode(config), layers, manifest.annotations or {})
