"""What a repository stores: every manifest that can be found, and how they depend on each other.

The distribution specification lists tags only. So manifests without a tag are found as children of
an index, as referrers, as the subject of a tag such as `sha256-<digest>.sig`, by digests that the
caller knows (deployments of the past), and by Google's list, which has them all.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from lapwing.errors import ImageMissingError
from lapwing.plan.image_retention import Stored
from lapwing.registry.inspect import read_config
from lapwing.registry.manifest import Manifest
from lapwing.registry.referrers import COSIGN_SUFFIXES, list_referrers
from lapwing.registry.repository import Repository

JOBS = 6
"""Requests in progress at once."""
_REFERRERS_TAG = re.compile(
    rf"(sha256|sha512)-([0-9a-f]{{64,}})({'|'.join(map(re.escape, COSIGN_SUFFIXES))})?"
)


async def read_stored(source: Repository, digests: Iterable[str] = ()) -> list[Stored]:
    """Return the manifests of a repository; `digests` may name some without a tag.

    Empty without a repository. Raises RegistryError.
    """
    reader = _Reader(source)
    try:
        tags = [tag async for tag in source.tags()]
        reader.times = await source.upload_times()
    except ImageMissingError:
        return []
    roots = [*tags, *reader.times, *digests]
    while roots:
        roots = [d for found in await asyncio.gather(*map(reader.read, roots)) for d in found]
    return list(reader.found.values())


class _Reader:
    """Reads manifests, each once. `times` are push times, where the registry reports them."""

    def __init__(self, source: Repository) -> None:
        self.found: dict[str, Stored] = {}
        self.times: dict[str, float] = {}
        self._source = source
        self._slots = asyncio.Semaphore(JOBS)
        self._visited: set[str] = set()

    async def read(self, reference: str) -> list[str]:
        """Read a tag or digest; return the digests that it names. A missing one is skipped."""
        if reference in self._visited:
            return []
        self._visited.add(reference)
        async with self._slots:
            try:
                manifest = await self._source.manifest(reference)
                known = self.found.get(manifest.digest) or await self._describe(manifest)
            except ImageMissingError:
                return []
            known = self.found.get(manifest.digest, known)
            if reference != manifest.digest:
                known = replace(known, tags=(*known.tags, reference))
                named = _REFERRERS_TAG.fullmatch(reference)
                if named is not None:
                    known = replace(known, subject=f"{named[1]}:{named[2]}")
            self.found[manifest.digest] = known
            if manifest.digest in self._visited and reference != manifest.digest:
                return [known.subject] if known.subject else []
            self._visited.add(manifest.digest)
            referrers = await list_referrers(self._source, manifest.digest)
        named_here = [*known.children, *(d.digest for d in referrers)]
        return [*named_here, known.subject] if known.subject else named_here

    async def _describe(self, manifest: Manifest) -> Stored:
        time = self.times.get(manifest.digest)
        if time is None and manifest.artifact_type == "":
            time = _created(await self._config(manifest))
        return Stored(
            digest=manifest.digest,
            time=time,
            children=tuple(child.digest for child in manifest.children),
            subject=manifest.subject.digest if manifest.subject else None,
        )

    async def _config(self, manifest: Manifest) -> dict[str, Any] | None:
        """Return the config of an image; of an index, that of its first image."""
        images = [child for child in manifest.children if child.platform]
        if images:
            return await self._config(await self._source.manifest(images[0].digest))
        return await read_config(self._source, manifest)


def _created(config: dict[str, Any] | None) -> float | None:
    """Return when an image was created, in Unix time; None if unknown."""
    text = (config or {}).get("created")
    try:
        found = datetime.fromisoformat(text).timestamp() if isinstance(text, str) else 0.0
    except ValueError:
        return None
    return found if found > 0 else None
