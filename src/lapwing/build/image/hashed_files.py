"""The hashed files of a static service, also those of its earlier releases.

    images that were live -> their layers of hashed files -> layers of the new image

A page outlives a switch: a browser that loaded it from one release requests its scripts from the
next one. So files with a content hash in their name are a layer of their own, and an image also has
that layer of the releases that were live before it. Such a layer is named in the new manifest and
configuration only: it stays in its registry, and is below the files of the new release.

The manifest marks the layer that belongs to its release by an annotation, which has the digest of
the archive in it. Layers of earlier releases are not marked: each image names only what it added.

Which images were live is known from the desired state. Their time is compared with that of the
commit that is built, not with the clock: a build of the same commit, after the same releases, is
the same image on any day.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lapwing.build.image.layer import Files, Layer
from lapwing.errors import ImageMissingError
from lapwing.registry.client import RegistryClient
from lapwing.registry.manifest import Manifest
from lapwing.render.caddy import GZIPPED, HASHED, KEEP_ASSETS_S
from lapwing.stack.image import Reference

ANNOTATION = "dev.lapwing.hashed-files.diff-id"
"""The annotation of a layer of hashed files in a manifest: the digest of its archive."""
MAX_RELEASES = 10
"""Earlier releases whose hashed files an image has; overlayfs allows few more layers than 100."""


@dataclass(frozen=True, slots=True)
class LiveImage:
    """An image that a service was live with, by digest, and until when (Unix time)."""

    reference: Reference
    until: float


def split(files: Files, prefix: str) -> tuple[Files, Files]:
    """Split files below `prefix` into those with a hash in their name, and the rest.

    A compressed copy of a hashed file is one, too.
    """
    hashed: dict[str, Path | None] = {
        name: path
        for name, path in files.items()
        if path is not None and _is_file(path) and re.search(HASHED, name.removeprefix(prefix))
    }
    copies = {name + GZIPPED for name in hashed}
    hashed |= {name: files[name] for name in copies if name in files}
    return hashed, {name: path for name, path in files.items() if name not in hashed}


def select(earlier: Iterable[Layer], layers: Iterable[Layer]) -> list[Layer]:
    """Return the layers of earlier releases for an image with `layers`, the newest last."""
    there = {layer.descriptor.digest for layer in layers}
    others = [layer for layer in earlier if layer.descriptor.digest not in there]
    return others[:MAX_RELEASES][::-1]


def mark(layer: Layer) -> Layer:
    """Return the layer with the annotation by which later images find it."""
    annotations = {ANNOTATION: layer.diff_id}
    described = msgspec.structs.replace(layer.descriptor, annotations=annotations)
    return Layer(described, layer.diff_id, layer.source)


def _is_file(path: Path) -> bool:
    return not (path.is_dir() or path.is_symlink())


async def earlier_layers(
    client: RegistryClient,
    live: Iterable[LiveImage],
    commit_time: int,
    report: Callable[[str], None],
) -> list[Layer]:
    """Return the layers of hashed files of images that were live, the newest first.

    `live` has the newest first. Raises RegistryError; an image that is missing is reported.
    """
    recent = [each.reference for each in live if each.until > commit_time - KEEP_ASSETS_S]
    recent = list(dict.fromkeys(recent))[: MAX_RELEASES + 1]  # One may be the image that is built.
    found = await asyncio.gather(*(_own_layer(client, each, report) for each in recent))
    return list({layer.descriptor.digest: layer for layer in found if layer}.values())


async def _own_layer(
    client: RegistryClient, image: Reference, report: Callable[[str], None]
) -> Layer | None:
    """Return the layer of hashed files that an image added; None if it has none."""
    repository = client.repository(image)
    try:
        manifest: Manifest = await repository.manifest(image.wanted)
        if manifest.is_index:  # The layer is the same for every platform.
            manifest = await repository.manifest(manifest.children[0].digest)
    except ImageMissingError:
        report(f"{image} is missing: pages of that release cannot load their hashed files")
        return None
    for layer in manifest.layers:
        diff_id = (layer.annotations or {}).get(ANNOTATION)
        if diff_id is not None:
            bare = msgspec.structs.replace(layer, annotations=None)
            return Layer(bare, diff_id, image)
    return None
