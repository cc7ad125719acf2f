"""Publish an image to a registry, an archive or the container engine of this machine.

The layers are pushed first, several at once, then the manifests, then the tags: a tag always names
a complete image. A layer of the base or of an earlier release is mounted if both are in one
registry, and copied otherwise. Existing blobs are skipped; an existing image costs one request.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lapwing.build import layers
from lapwing.build.artifact import FileBlob
from lapwing.build.image.builder import Image, PlatformImage
from lapwing.errors import BuildError
from lapwing.registry.client import RegistryClient
from lapwing.registry.layout import create_layout
from lapwing.registry.layout_reference import LayoutReference
from lapwing.registry.manifest import Descriptor
from lapwing.registry.pull import BlobSource, BlobVerifier, RemoteBlob, verified
from lapwing.registry.push import BlobOutcome, BlobPusher, Progress
from lapwing.settings import Settings
from lapwing.stack.image import Reference
from lapwing.system import process

LOAD_TIMEOUT_S = 600.0


@dataclass(slots=True)
class Pushed:
    """What a push did: the tags that name the image, blobs by outcome, bytes sent."""

    tags: list[str] = field(default_factory=list)
    blobs: dict[BlobOutcome, int] = field(
        default_factory=lambda: {"copied": 0, "mounted": 0, "present": 0}
    )
    sent: int = 0
    manifests: int = 0


async def push_image(
    client: RegistryClient,
    image: Image,
    target: Reference,
    tags: Sequence[str],
    progress: Progress,
) -> Pushed:
    """Push an image and tag it. Raises RegistryError; then no tag names an incomplete image."""
    used = [image.base.reference, *(r for each in image.images for r in each.remote.values())]
    same = [ref.repository for ref in used if ref is not None and ref.api == target.api]
    mount_from = next((name for name in same if name != target.repository), None)
    repository = client.repository(target, write=True, mount_from=mount_from)
    pusher, done = BlobPusher(repository, mount_from=mount_from), Pushed()
    for each in image.images:
        manifest = each.manifest
        if await repository.digest(manifest.digest) == manifest.digest:
            continue  # A registry accepts a manifest only when it has its blobs.
        sources = ((blob, _source(client, image, each, blob)) for blob in manifest.blobs)
        await pusher.push_all(sources, progress, done, where=image.service)
        await repository.put_manifest(manifest, manifest.digest)
        done.manifests += 1
    root = image.root
    if root.is_index and await repository.ensure_manifest(root, root.digest):
        done.manifests += 1
    for tag in tags:
        await repository.ensure_manifest(root, tag)
        done.tags.append(tag)
    return done


async def write_archive(
    client: RegistryClient,
    images: Iterable[tuple[Image, str, Sequence[str]]],
    path: Path,
    settings: Settings,
) -> None:
    """Write images, each with its repository and tags, to one archive.

    Raises RegistryError if a layer of a base cannot be read, OSError if the file cannot be written.
    """
    with create_layout(LayoutReference("oci-archive", path)) as layout:
        for image, repository, tags in images:
            for each in image.images:
                for blob in each.manifest.blobs:
                    source = await _local(client, image, each, blob, settings)
                    await layout.push(blob, source, where=image.service)
                await layout.put_manifest(each.manifest, each.manifest.digest)
            await layout.ensure_manifest(image.root, image.root.digest)
            for tag in tags:
                layout.name_image(image.root, tag, repository)


async def write_layout(
    client: RegistryClient, image: Image, each: PlatformImage, folder: Path, settings: Settings
) -> None:
    """Write the image for one platform as an OCI layout in a folder. Raises as `write_archive`."""
    with create_layout(LayoutReference("oci", folder)) as layout:
        for blob in each.manifest.blobs:
            source = await _local(client, image, each, blob, settings)
            await layout.push(blob, source, where=image.service)
        await layout.put_manifest(each.manifest, each.manifest.digest)
        layout.name_image(each.manifest, "")


def load(archive: Path, engine: str, settings: Settings) -> None:
    """Load an archive into a container engine. Raises BuildError."""
    done = process.run(
        [engine, "load", "--input", str(archive)], settings.environ, timeout=LOAD_TIMEOUT_S
    )
    if done.status != 0:
        raise BuildError(
            f"`{engine} load` failed (exit status {done.status}).",
            detail=done.stderr.strip()[-2000:] or None,
            hint="Check that the engine is running and that you may use it: "
            f"`{Path(engine).name} info`. An image can be pushed or written to a file without one.",
        )


def _source(
    client: RegistryClient, image: Image, each: PlatformImage, blob: Descriptor
) -> BlobSource:
    """Return where a blob comes from: it was made here, or is in a registry."""
    if blob.digest in each.blobs:
        return each.blobs[blob.digest]
    reference = each.remote.get(blob.digest, image.base.reference)
    assert reference is not None
    return RemoteBlob(client.repository(reference))


async def _local(
    client: RegistryClient, image: Image, each: PlatformImage, blob: Descriptor, settings: Settings
) -> BlobSource:
    """Return where a blob comes from; one of a registry is kept on this machine."""
    source = _source(client, image, each, blob)
    if isinstance(source, RemoteBlob):
        return FileBlob(await _download(blob, source, settings), cached=True)
    return source


async def _download(blob: Descriptor, source: BlobSource, settings: Settings) -> Path:
    """Return the file of a layer in a registry, which is downloaded unless it is there."""
    folder = settings.images / f"base-{blob.digest.partition(':')[2][:24]}"
    if not layers.renew(folder):
        with tempfile.NamedTemporaryFile(prefix="lapwing-blob-") as file:
            verifier = BlobVerifier(
                blob.digest, blob.size, "a layer of the image", source.remedy(blob.digest)
            )
            async for data in verified(source.read(verifier, 0), verifier):
                file.write(data)
            file.flush()

            def fill(made: Path) -> None:
                shutil.copyfile(file.name, made / "blob")

            layers.make(folder, fill)
    return folder / "blob"
