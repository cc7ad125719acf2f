"""What refers to an image without being part of it: signatures, SBOMs, attestations.

Three ways are in use, and all are followed: the referrers API of distribution-spec 1.1; the
referrers tag `sha256-<digest>` with an index of them, for registries without the API; and cosign's
own tags `sha256-<digest>.sig`, `.att` and `.sbom`, which are older than both.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import NamedTuple

from lapwing.errors import RegistryError
from lapwing.registry.layout import Layout
from lapwing.registry.manifest import (
    MAX_MANIFESTS,
    OCI_EMPTY,
    OCI_INDEX,
    Descriptor,
    Manifest,
    build_index,
    build_manifest,
    parse_manifest,
)
from lapwing.registry.pull import MemoryBlob
from lapwing.registry.push import Progress, push_artifact
from lapwing.registry.registry import Request
from lapwing.registry.repository import Repository

SIGNATURES = ".sig"
COSIGN_SUFFIXES = (SIGNATURES, ".att", ".sbom")
"""Source: sigstore's cosign, SIGNATURE_SPEC.md and its attached images."""

_locks: dict[tuple[str, str], asyncio.Lock] = {}


class Referrers(NamedTuple):
    """What refers to one manifest: by descriptor, and by cosign's tags."""

    descriptors: list[Descriptor]
    tags: list[str]


async def find_referrers(source: Repository | Layout, digest: str) -> Referrers:
    """Find what refers to a manifest, in each of the three ways."""
    names = [referrers_tag(digest) + suffix for suffix in COSIGN_SUFFIXES]
    descriptors, found = await asyncio.gather(
        list_referrers(source, digest), asyncio.gather(*(source.digest(name) for name in names))
    )
    tags = [name for name, tagged in zip(names, found, strict=True) if tagged is not None]
    return Referrers(descriptors, tags)


async def list_referrers(source: Repository | Layout, digest: str) -> list[Descriptor]:
    """List the referrers of a manifest by the API, or by the referrers tag where there is none."""
    if isinstance(source, Layout):
        return await _tagged_referrers(source, digest)
    request = Request("GET", source.path(f"referrers/{digest}"), {"Accept": OCI_INDEX})
    where, found = f"the referrers of {source}@{digest}", list[Descriptor]()
    async for page in source.pages(request, 200, 400, 404, 405):
        kind = page.headers.get("content-type", "").partition(";")[0]
        if page.status != 200 or kind != OCI_INDEX:
            return await _tagged_referrers(source, digest)
        found += parse_manifest(page.body, kind, where).children
        if len(found) > MAX_MANIFESTS:
            raise RegistryError(f"{source}@{digest} has more than {MAX_MANIFESTS} referrers.")
    return found


async def push_referrer(
    target: Repository,
    subject: Manifest,
    artifact_type: str,
    content: bytes,
    annotations: Mapping[str, str],
    progress: Progress,
) -> Manifest:
    """Push a document that refers to an image, unless it is there; return its manifest.

    The same content has the same digest. Raises RegistryError.
    """
    config, blob = Descriptor.of(b"{}", OCI_EMPTY), Descriptor.of(content, artifact_type)
    referrer = build_manifest(config, [blob], annotations, artifact_type, subject)
    if await target.digest(referrer.digest) != referrer.digest:
        blobs = [(config, MemoryBlob(b"{}")), (blob, MemoryBlob(content))]
        await push_artifact(referrer, blobs, target, [referrer.digest], progress, artifact_type)
    await attach_referrer(target, referrer, subject.digest)
    return referrer


async def attach_referrer(target: Repository | Layout, referrer: Manifest, subject: str) -> None:
    """Make `target` list a referrer, which it already stores, for its subject.

    A registry with the referrers API does so itself. In one without, and in a layout, the index
    under the referrers tag gets one more entry; two programs that do so in one registry at once may
    lose one (the specification has no remedy).
    """
    if any(d.digest == referrer.digest for d in await list_referrers(target, subject)):
        return
    tag = referrers_tag(subject)
    held = target.locked() if isinstance(target, Layout) else contextlib.nullcontext()
    async with _locks.setdefault((str(target), tag), asyncio.Lock()):
        with held:
            listed = await _tagged_referrers(target, subject)
            if all(d.digest != referrer.digest for d in listed):
                await target.put_manifest(build_index([*listed, referrer.descriptor]), tag)


async def _tagged_referrers(source: Repository | Layout, digest: str) -> list[Descriptor]:
    tag = referrers_tag(digest)
    if await source.digest(tag) is None:
        return []
    found = await source.manifest(tag)
    return list(found.children) if found.is_index else []


def referrers_tag(digest: str) -> str:
    """Return the tag that holds the referrers of a digest.

    Source: distribution specification, "Referrers Tag Schema".
    """
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm[:32]}-{encoded[:64]}"
