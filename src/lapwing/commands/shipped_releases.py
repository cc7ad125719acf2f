"""The releases that CI pushes for a machine: of processes and static files, and images."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lapwing.build import artifact
from lapwing.build.image.config import PORT
from lapwing.build.release import Release, ReleaseStore
from lapwing.errors import ImageMissingError
from lapwing.plan.make import Built
from lapwing.plan.model import Container
from lapwing.plan.names import release_of
from lapwing.registry.client import RegistryClient
from lapwing.settings import Settings
from lapwing.stack import image
from lapwing.stack.load import LoadedStack
from lapwing.targets import cluster_images
from lapwing.targets.cluster_images import BuiltImages, Destination

if TYPE_CHECKING:
    from lapwing.registry.push import Progress


async def push(
    releases: Mapping[str, Release],
    revisions: Mapping[str, str],
    registry: str,
    settings: Settings,
    report: Callable[[str], None],
    progress: Progress,
) -> dict[str, str]:
    """Push each release to `registry`/<stack>/<service>, tagged by revision and `latest`.

    Returns the references by digest. Raises RegistryError.
    """
    store, pushed = ReleaseStore(settings.releases), {}
    async with RegistryClient(settings) as client:
        for name, release in releases.items():
            repository = f"{registry}/{release.stack}/{name}"
            target = image.parse(repository, lower=True, default_tag=None)
            report(f"pushing {release.name} to {target.name}")
            folder = store.folder(release.stack, name, release.name)
            with tempfile.TemporaryDirectory(prefix="lapwing-push-") as temporary:
                archives = artifact.pack(release, folder, Path(temporary))
                tags = (revisions[name], image.LATEST)
                to = client.repository(target, write=True)
                manifest = await artifact.push(release, folder, archives, to, tags, progress)
            pushed[name] = f"{target.name}@{manifest.digest}"
    return pushed


def build_containers(
    loaded: LoadedStack,
    settings: Settings,
    names: list[str],
    registry: str,
    report: Callable[[str], None],
    desired: str | None,
) -> tuple[BuiltImages, dict[str, Built]]:
    """Build or find the images of services that a machine pulls and runs as containers.

    Returns the built ones, which are not pushed yet, and the releases of all. Raises BuildError,
    SourceError, UsageError or RegistryError.
    """
    services = loaded.stack.services
    made = [name for name in names if services[name].image is None]
    built = BuiltImages(loaded)
    if made:
        destination = Destination(registry)
        built = cluster_images.build(loaded, settings, made, destination, report, desired)
    given = {name: found for name in names if (found := services[name].image) is not None}
    releases = {}
    for name, reference in (built.references | asyncio.run(_pin(given, settings))).items():
        service = services[name]
        port = (service.port or PORT) if service.kind == "web" else None
        container = Container(port=port, user=service.user or 0, scratch=service.scratch)
        revision = built.revisions.get(name, "")
        releases[name] = Built(release_of(reference), revision, reference, container)
    return replace(built, options=replace(built.options, scan=False)), releases


async def _pin(images: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return images by digest. Raises RegistryError or ImageMissingError."""
    pinned = {}
    async with RegistryClient(settings) as client:
        for name, text in images.items():
            given = image.parse(text)
            digest = await client.digest(given)
            if digest is None:
                raise ImageMissingError(
                    f"{text}, the image of {name}, is not in its registry.",
                    hint="Correct `image:`, or push it.",
                )
            pinned[name] = f"{given.name}@{digest}"
    return pinned
