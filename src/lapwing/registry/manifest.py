"""Manifests and indexes as data: what a copy has to bring along, and in which order.

The bytes of a manifest are kept as they came, because its digest names exactly those. Only what a
copy needs is read from them: the descriptors. Everything a registry sends is bounded here, so that
a manifest made to hurt is refused before it costs anything: its bytes (`answers.SMALL`), how many
descriptors it has, how deep indexes are nested and how many manifests hang on one root.

Sources: the OCI image specification 1.1 (manifest, image index, descriptor) and Docker's image
manifest, version 2, schema 2, which most registries still hold. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from lapwing.errors import ImageReferenceError, IntegrityError, RegistryError
from lapwing.stack.image import check_digest, digest_of

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_LIST)
ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))

MOST_LAYERS = 2000
MOST_CHILDREN = 1000
DEEPEST = 4
"""Indexes inside indexes; in practice there is one."""
MOST_MANIFESTS = 5000
"""Manifests under one root, its indexes and referrers included."""
MOST_BYTES = 64 * 1024 * 1024
"""Bytes of all manifests under one root: they are in memory at once."""


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an image runs: `linux/arm64/v8`."""

    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


class Descriptor(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Names some bytes: their digest, size in bytes, and kind."""

    media_type: str = ""
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None
    artifact_type: str = ""
    urls: list[str] | None = None

    @property
    def elsewhere(self) -> bool:
        """Whether a registry need not hold it: a layer that may not be distributed."""
        return "nondistributable" in self.media_type or ".foreign." in self.media_type


class _Document(msgspec.Struct, rename="camel", kw_only=True):
    schema_version: int = 0
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index, with the bytes that its digest names."""

    digest: str
    media_type: str
    raw: bytes
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str = ""
    annotations: Mapping[str, str] | None = None

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEXES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers, each digest once."""
        every = ((self.config,) if self.config else ()) + self.layers
        return tuple({blob.digest: blob for blob in every}.values())

    @property
    def descriptor(self) -> Descriptor:
        """How an index names this manifest."""
        kind = self.artifact_type or (self.config.media_type if self.config else "")
        return Descriptor(
            media_type=self.media_type,
            digest=self.digest,
            size=len(self.raw),
            artifact_type=kind,
            annotations=dict(self.annotations) if self.annotations else None,
        )


def read(raw: bytes, media_type: str, where: str, expected: str | None = None) -> Manifest:
    """Read what came as `media_type` from `where` (for errors); `expected` is its digest.

    Raises IntegrityError if it is not what the digest names, RegistryError if it cannot be used.
    """
    digest = digest_of(raw, expected or "sha256")
    if expected and digest != expected:
        raise IntegrityError(
            f"The manifest of {where} has the digest {digest}, not {expected}.",
            hint="The registry, or something on the way, changed it. Nothing was tagged.",
        )
    try:
        document = msgspec.json.decode(raw, type=_Document)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RegistryError(f"The manifest of {where} cannot be read: {error}.") from error
    kind = document.media_type or _kind(media_type, document)
    if document.schema_version != 2 or kind not in (*MANIFESTS, *INDEXES):
        raise RegistryError(
            f"The manifest of {where} is of a kind that cannot be copied: "
            f"{kind or 'unnamed'}, schema {document.schema_version}.",
            hint="Schema 1 was given up by Docker in 2019: push the image again with a tool of "
            "today."
            if document.schema_version == 1
            else None,
        )
    children = document.manifests or [] if kind in INDEXES else []
    layers = document.layers or [] if kind in MANIFESTS else []
    if kind in MANIFESTS and document.config is None:
        raise RegistryError(f"The manifest of {where} names no config.")
    _bound(len(layers), MOST_LAYERS, "layers", where)
    _bound(len(children), MOST_CHILDREN, "manifests", where)
    config = document.config if kind in MANIFESTS else None
    _check([d for d in (config, document.subject, *layers, *children) if d], where)
    return Manifest(
        digest,
        kind,
        raw,
        config,
        tuple(layers),
        tuple(children),
        document.subject,
        document.artifact_type,
        document.annotations,
    )


def narrow(index: Manifest, wanted: Sequence[Platform]) -> tuple[Descriptor, ...]:
    """The children of an index for some platforms, with the attestations that belong to them.

    Raises RegistryError, with what there is, if a platform is missing.
    """
    chosen: dict[str, Descriptor] = {}
    for platform in wanted:
        fits = [c for c in index.children if c.platform and _fits(c.platform, platform)]
        if not fits:
            there = ", ".join(str(c.platform) for c in index.children if _real(c.platform))
            raise RegistryError(
                f"The image has nothing for {platform}.", hint=f"It has: {there or 'nothing'}."
            )
        chosen |= {c.digest: c for c in fits}
    about = (c for c in index.children if _about(c) in chosen)
    return tuple((chosen | {c.digest: c for c in about}).values())


def narrowed(index: Manifest, children: Iterable[Descriptor]) -> Manifest:
    """The index with only some of its children; it has another digest."""
    kept = {child.digest for child in children}
    document = json.loads(index.raw)
    document["manifests"] = [m for m in document["manifests"] if m["digest"] in kept]
    raw = json.dumps(document, separators=(",", ":")).encode()
    return read(raw, index.media_type, "the chosen platforms")


def platform(text: str) -> Platform:
    """Parse `os/architecture[/variant]`. Raises ImageReferenceError."""
    parts = text.lower().split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ImageReferenceError(
            f"{text!r} is not a platform.", hint="An example: linux/amd64, or linux/arm64/v8."
        )
    return Platform(*parts)


def encode(document: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest of our own: the same for the same content."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def plain(descriptor: Descriptor) -> dict[str, Any]:
    """A descriptor as it stands in a manifest, without what is empty."""
    found: dict[str, Any] = msgspec.to_builtins(descriptor)
    return {key: value for key, value in found.items() if value not in (None, "")}


def _kind(media_type: str, document: _Document) -> str:
    """The kind by the Content-Type header, or by what is in it: OCI leaves mediaType optional."""
    given = media_type.partition(";")[0].strip().lower()
    if given in (*MANIFESTS, *INDEXES):
        return given
    if document.manifests is not None and document.layers is None:
        return OCI_INDEX
    return OCI_MANIFEST if document.layers is not None and document.config else given


def _bound(count: int, most: int, what: str, where: str) -> None:
    if count > most:
        raise RegistryError(
            f"The manifest of {where} names {count} {what}; more than {most} are not taken.",
            hint="It may be made to do harm. Nothing was copied.",
        )


def _check(descriptors: Iterable[Descriptor], where: str) -> None:
    for descriptor in descriptors:
        try:
            check_digest(descriptor.digest)
        except ImageReferenceError as error:
            raise RegistryError(f"The manifest of {where} is damaged: {error.message}") from error
        if not 0 <= descriptor.size < 2**62:
            raise RegistryError(
                f"The manifest of {where} is damaged: a size of {descriptor.size} bytes."
            )


def _fits(found: Platform, wanted: Platform) -> bool:
    same = (found.os, found.architecture) == (wanted.os, wanted.architecture)
    return same and wanted.variant in ("", found.variant)


def _real(found: Platform | None) -> bool:
    return found is not None and found.os not in ("", "unknown")


def _about(child: Descriptor) -> str | None:
    """The manifest that a child attests, as BuildKit says it."""
    return (child.annotations or {}).get("vnd.docker.reference.digest")
