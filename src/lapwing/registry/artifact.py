"""Pushing an OCI artifact that is made here: some blobs, then its manifest, then the tags.

Source: the OCI image specification 1.1, "Guidelines for Artifact Usage".
"""

from __future__ import annotations

from collections.abc import Iterable

from lapwing.registry.copy import Progress
from lapwing.registry.manifest import Descriptor, Manifest
from lapwing.registry.pull import Content
from lapwing.registry.push import Pusher
from lapwing.registry.repository import Repository


async def push(
    made: Manifest,
    blobs: Iterable[tuple[Descriptor, Content]],
    target: Repository,
    tags: Iterable[str],
    progress: Progress,
    where: str,
) -> None:
    """Push an artifact under some tags; what is there is not sent again. Errors name it `where`.

    Raises RegistryError; then no tag was written but those before the one that was refused.
    """
    pusher = Pusher(target)
    for blob, content in blobs:

        def through(more: int, digest: str = blob.digest) -> None:
            progress.advance(digest, more)

        progress.begin(blob.digest, blob.size)
        outcome = await pusher.push(blob, content, through, where=where)
        progress.end(blob.digest, outcome)
    for tag in tags:
        if await target.digest(tag) != made.digest:
            await target.put(made, tag)
