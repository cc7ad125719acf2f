"""The tags `deployed-<environment>`, which mark in a registry the images that an environment runs.

    documents of a deployment and of the one before it -> tags to set and to remove -> registry

Clean-up policies of a registry can select images by tag, but do not know what a cluster runs. So
the image of each service gets the tag of the environment once its deployment or rollback has
succeeded (with Argo CD: was committed), and loses the tag when the service is removed. Lapwing
itself reads the desired state instead, so an error of the registry does not fail the deployment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from lapwing.errors import LapwingError, RegistryError
from lapwing.plan.image_retention import DEPLOYED
from lapwing.plan.model import Document
from lapwing.registry.client import RegistryClient
from lapwing.registry.manifest import build_index
from lapwing.registry.repository import Repository
from lapwing.settings import Settings
from lapwing.stack.image import Reference, parse, service_image
from lapwing.stack.load import StackFile
from lapwing.system.retry import RetryPolicy
from lapwing.targets.planned import PlannedChange

_RETRY = RetryPolicy(attempts=3)


def update_tags(
    file: StackFile, change: PlannedChange, settings: Settings, report: Callable[[str], None]
) -> None:
    """Tag the images of a change in the registry of the environment, and report what failed."""
    try:
        registry = file.load(change.document.environment).registry
    except LapwingError as error:  # `rollback` and `down` do not need a valid stack file.
        report(f"warning: the deployed images are not tagged: {error.message}")
        return
    if registry is not None:
        update_tags_in(registry, change, settings, report)


def update_tags_in(
    registry: str, change: PlannedChange, settings: Settings, report: Callable[[str], None]
) -> None:
    """Tag the images of a change in a registry with its folder, and report what failed."""
    tag = f"{DEPLOYED}{change.document.environment}"
    images = _images(change.document, registry)
    removed = {n: i for n, i in _images(change.before, registry).items() if n not in images}

    async def attempt(work: Awaitable[None], failure: str) -> None:
        try:
            await work
        except RegistryError as error:
            report(f"warning: {failure}: {error.message}")

    async def run() -> None:
        client = RegistryClient(settings, retry=_RETRY)
        async with client, asyncio.TaskGroup() as group:
            for image in images.values():
                work = _set(client.repository(image, write=True), tag, image.wanted)
                group.create_task(attempt(work, f"{image.name} is not tagged {tag}"))
            for image in removed.values():
                work = _remove(client.repository(image, write=True, delete=True), tag)
                group.create_task(attempt(work, f"{image.name} is still tagged {tag}"))

    if images or removed:
        asyncio.run(run())


def _images(document: Document | None, registry: str) -> dict[str, Reference]:
    """Return, by service, each image by digest in the repository of that service."""
    found = {}
    for name, service in (document.services if document else {}).items():
        if service.image is not None and "@" in service.image:
            image = parse(service.image)
            if image.name == service_image(registry, name).name:
                found[name] = image
    return found


async def _set(repository: Repository, tag: str, digest: str) -> None:
    if await repository.digest(tag) != digest:
        await repository.put_manifest(await repository.manifest(digest), tag)


async def _remove(repository: Repository, tag: str) -> None:
    """Remove a tag, but not its image.

    Some registries (docker-registry 2) cannot delete a single tag, only an image with all its tags:
    there the tag is moved to an empty index, which is deleted.
    """
    if await repository.digest(tag) is None:
        return
    try:
        await repository.delete(tag)
    except RegistryError:
        empty = build_index([])
        await repository.delete(empty.digest)  # Fails before a change if nothing can be deleted.
        await repository.put_manifest(empty, tag)
        await repository.delete(empty.digest)
