"""The images that the services of an environment on a cluster were live with.

    desired state -> deployments that switched -> images by digest, with the time until which

A new image of a static service keeps their hashed files. A tag does not prove that an image was
live, and what was only built or has failed must not become public, so nothing but the desired state
counts: that of the environment that is deployed, because others have other pages.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator

from lapwing.build.image.hashed_files import LiveImage
from lapwing.desired.history import HISTORY_LENGTH, history
from lapwing.desired.remote import Remote
from lapwing.desired.repository import DesiredRepository
from lapwing.kubernetes.local_cluster import LOCAL_REGISTRY
from lapwing.plan.model import Document
from lapwing.settings import Settings
from lapwing.stack.image import parse, service_image
from lapwing.stack.load import LoadedStack

NEVER_LIVE = ("failed", "aborted")
"""The outcomes of deployments that ended before the switch."""


def live_images(
    loaded: LoadedStack,
    settings: Settings,
    registry: str | None,
    desired: str | None = None,
) -> dict[str, list[LiveImage]]:
    """Return the images in the same registry that each service was live with, the newest first.

    Images in another registry do not count: that registry may be gone, which must not stop a
    deployment. Images in the nodes of a local cluster do not count: they are in no registry.
    `desired` is the URL of the desired-state repository, None for that of the environment. Raises
    DesiredStateError if it cannot be read.
    """
    if loaded.settings.target != "kubernetes" or registry is None:
        return {}
    if service_image(registry, "any").api == LOCAL_REGISTRY:
        return {}
    found: dict[str, list[LiveImage]] = {name: [] for name in loaded.stack.services}
    repository = DesiredRepository(settings.desired)
    url = desired or loaded.settings.repository
    if url is not None:
        remote = Remote(url, settings.remotes, settings.environ)
        remote.fetch()
        repository = remote.repository
    for document, until in live_documents(repository, loaded.stack.stack, loaded.environment):
        for name, service in document.services.items():
            if name in found and service.image is not None:
                image = parse(service.image)
                if image.digest and image.api == service_image(registry, name).api:
                    found[name].append(LiveImage(image, until))
    return found


def live_documents(
    repository: DesiredRepository, stack: str, environment: str
) -> Iterator[tuple[Document, float]]:
    """Yield the documents that were live, newest first, each with the time it was replaced."""
    entries = history(repository, stack, environment, HISTORY_LENGTH)
    live = [entry for entry in entries if entry.outcome not in NEVER_LIVE]
    documents = repository.documents(stack, environment, [entry.commit for entry in live])
    until = math.inf
    for entry, document in zip(live, documents, strict=True):
        if isinstance(document, Document):
            yield document, until
        until = datetime.datetime.fromisoformat(entry.time).timestamp()
