"""Pin images: the digests of all third-party images that a stack is built on or runs with.

    base images of builds
    images that are rendered for each cluster: Envoy, curl, rclone, databases
    images that only charts have: openssl
      -> the digest that the registry has now for each tag -> lapwing.lock

The image of a service with `image:` is not among them: it is what its users release. A machine pins
the images of databases itself, at the first deployment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from lapwing.build.image.base import find_digest
from lapwing.build.image.builder import base_name
from lapwing.build.source import read_source
from lapwing.errors import UsageError
from lapwing.registry.client import RegistryClient
from lapwing.render.helm.secrets import SIGNER
from lapwing.render.kubernetes import render
from lapwing.render.kubernetes.analysis import CURL
from lapwing.settings import Settings
from lapwing.stack.image import mirrored, parse
from lapwing.stack.image_lock import read_lock, write_lock
from lapwing.stack.load import LoadedStack, environments
from lapwing.targets.image_requests import image_request

CHART_IMAGES = (CURL, SIGNER)
"""The images of what is only in charts: the test, and the generator of secrets."""


def pin_images(
    loaded: LoadedStack, settings: Settings, *, plain_http: bool = False
) -> dict[str, str]:
    """Write the current digests of images to the lock file; return them.

    Raises RegistryError, BuildError, SourceError or UsageError; then the file is unchanged.
    """
    read_lock(loaded.folder)  # An invalid file is not replaced.
    names = {str(parse(name)) for name in (*_bases(loaded, settings), *_rendered(loaded))}
    if not names:
        raise UsageError(
            "No service is built from source, and no environment is on Kubernetes: there is no "
            "image to pin.",
            hint="On a machine, the images of databases are pinned at the first deployment.",
        )

    async def run() -> dict[str, str]:
        async with RegistryClient(settings, plain_http=plain_http) as client:
            found = {name: await find_digest(client, name, {}) for name in sorted(names)}
            return {name: reference.wanted for name, reference in found.items()}

    digests = asyncio.run(run())
    write_lock(loaded.folder, digests)
    return digests


def _bases(loaded: LoadedStack, settings: Settings) -> Iterator[str]:
    """Yield the base images of builds that have no digest."""
    for name, service in loaded.stack.services.items():
        if service.build is None or service.dockerfile is not None:
            continue
        request = image_request(loaded, settings, name, ())
        base = base_name(request, read_source(request.build.folder, settings.environ))
        if base is not None and "@" not in base:
            yield base


def _rendered(loaded: LoadedStack) -> Iterator[str]:
    """Yield the images without a digest in the manifests and charts of every cluster."""
    for each in environments(loaded.path, folders=False, env_files=False):
        if each.settings.target == "kubernetes":
            yield from unpinned(each, {})
            yield from (mirrored(i, each.settings.registry_mirror) for i in CHART_IMAGES)


def unpinned(loaded: LoadedStack, lock: Mapping[str, str]) -> list[str]:
    """List the third-party images in the manifests of a cluster that have no digest."""
    images = {name: s.image or name for name, s in loaded.stack.services.items()}
    made = replace(render.prepare(loaded, images), digests=lock)
    found = {image for tree in render.objects(made) for image in _images(tree)}
    return sorted(i for i in found - set(images.values()) if "@" not in i)


def unpinned_notes(loaded: LoadedStack) -> Iterator[str]:
    """Describe the images of a cluster that have no digest, for `lapwing check`."""
    if loaded.settings.target != "kubernetes":
        return
    lock, names = read_lock(loaded.folder), list[str]()
    with contextlib.suppress(UsageError):  # Of a name that is too long, which `deploy` reports.
        names = unpinned(loaded, lock)
    if names:
        yield (
            f"In `{loaded.environment}`: images without a digest: {', '.join(names)}. Their "
            f"publishers may move the tags. `lapwing image pin -e {loaded.environment}` writes the "
            "digests to lapwing.lock."
        )


def _images(tree: Any) -> Iterator[str]:
    """Yield the images of all containers in an object."""
    for value in tree.values() if isinstance(tree, dict) else tree:
        if isinstance(value, dict | list):
            yield from _images(value)
    if isinstance(tree, dict) and "image" in tree and "name" in tree:
        yield str(tree["image"])
