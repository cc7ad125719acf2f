"""What belongs to an image without being in it: signatures, SBOMs, attestations.

Three ways are in use, and all are followed: the referrers interface of distribution-spec 1.1; the
tag `sha256-<digest>` with an index of them, where a registry has no such interface; and cosign's
own tags `sha256-<digest>.sig`, `.att` and `.sbom`, which are older than both.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

from lapwing.registry import manifest
from lapwing.registry.manifest import Descriptor, Manifest
from lapwing.registry.repository import Repository, stand_in_tag

COSIGN = (".sig", ".att", ".sbom")
"""Source: sigstore's cosign, SIGNATURE_SPEC.md and its attached images."""

_changing: dict[tuple[str, str], asyncio.Lock] = {}


@dataclass(frozen=True, slots=True)
class Found:
    """What refers to one manifest: by descriptor, and by the names of tags."""

    attached: list[Descriptor]
    tags: list[str]


async def found_at(source: Repository, digest: str) -> Found:
    """Ask for what refers to a manifest, in every way."""
    names = [stand_in_tag(digest) + ending for ending in COSIGN]
    attached, there = await asyncio.gather(
        source.referrers(digest), asyncio.gather(*(source.digest(name) for name in names))
    )
    return Found(attached, [n for n, d in zip(names, there, strict=True) if d is not None])


async def attach(target: Repository, referrer: Manifest, subject: str) -> None:
    """See to it that `target` lists a referrer, which it has, for its subject.

    A registry with the referrers interface does so by itself. In one without, the index under the
    tag that stands in gets one entry more; two programs that do so at once may lose one (the
    specification knows no remedy).
    """
    if any(d.digest == referrer.digest for d in await target.referrers(subject)):
        return
    tag = stand_in_tag(subject)
    async with _changing.setdefault((str(target), tag), asyncio.Lock()):
        present = await target.stand_in(subject)
        listed = list(present.children) if present else []
        if all(d.digest != referrer.digest for d in listed):
            index = _index([*listed, referrer.descriptor])
            await target.put(index, tag)


def _index(children: list[Descriptor]) -> Manifest:
    raw = manifest.encode(
        {
            "schemaVersion": 2,
            "mediaType": manifest.OCI_INDEX,
            "manifests": [manifest.plain(child) for child in children],
        }
    )
    made = manifest.read(raw, manifest.OCI_INDEX, "an index of referrers")
    return replace(made, children=tuple(children))
