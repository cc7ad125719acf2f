"""Manifests and indexes as data: what a copy has to transfer, and in which order.

The bytes of a manifest are kept as received, because its digest names exactly those. Only the
descriptors are parsed. Everything a registry sends is bounded here, so that a malicious manifest is
refused before it costs anything: its size, how many descriptors it has, how deep indexes are nested
and how many manifests are below one root.

Sources: the OCI image specification 1.1 (manifest, image index, descriptor) and Docker's image
manifest, version 2, schema 2, which most registries still hold.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from lapwing.errors import ImageReferenceError, IntegrityError, RegistryError
from lapwing.stack.image import check_digest, digest_of

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"

MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_LIST)
ACCEPT = ", ".join((OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST))

ALIASES = {
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "i386": ("386", ""),
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
}
DEFAULT_VARIANTS = {"amd64": "v1", "arm": "v7", "arm64": "v8"}
"""Other names of architectures, with their variant; and which variant is meant without one.
Source: containerd's `platforms` package, normalizeArch."""

MAX_LAYERS = 2000
MAX_CHILDREN = 1000
MAX_DEPTH = 4
"""Indexes inside indexes; in practice there is one."""
MAX_MANIFESTS = 5000
"""Manifests below one root, its indexes and referrers included."""
MAX_TREE_BYTES = 64 * 1024 * 1024
"""Bytes of all manifests below one root: they are in memory at once."""


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an image runs on, such as `linux/arm64/v8`."""

    os: str = ""
    architecture: str = ""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def is_known(self) -> bool:
        """Whether it is a platform: BuildKit marks attestations as `unknown/unknown`."""
        return self.os not in ("", "unknown")

    def matches(self, wanted: Platform) -> bool:
        """Return whether an image for this platform is one for `wanted`.

        `linux/arm64` and `linux/arm64/v8` are one platform. Without a variant, every variant fits.
        """
        found, other = self._normalized(), wanted._normalized()
        same = (found.os, found.architecture) == (other.os, other.architecture)
        return same and other.variant in ("", found._variant())

    def _normalized(self) -> Platform:
        architecture, variant = ALIASES.get(self.architecture, (self.architecture, ""))
        number = self.variant.removeprefix("v")
        return Platform(self.os, architecture, f"v{number}" if number else variant)

    def _variant(self) -> str:
        return self.variant or DEFAULT_VARIANTS.get(self.architecture, "")


class Descriptor(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """The digest, the size in bytes and the media type of some content."""

    media_type: str = ""
    digest: str
    size: int
    platform: Platform | None = None
    annotations: dict[str, str] | None = None
    artifact_type: str = ""
    urls: list[str] | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether it is a non-distributable layer, which a registry need not hold."""
        return "nondistributable" in self.media_type or ".foreign." in self.media_type

    @classmethod
    def of(cls, content: bytes, media_type: str) -> Descriptor:
        """Describe some content."""
        return cls(media_type=media_type, digest=digest_of(content), size=len(content))


class _Document(msgspec.Struct, rename="camel", kw_only=True):
    schema_version: int = 0
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    manifests: list[Descriptor] | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] | None = None


class Manifest(NamedTuple):
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
        """Whether it is an index."""
        return self.media_type in INDEXES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers, each digest once."""
        every = ((self.config,) if self.config else ()) + self.layers
        return tuple({blob.digest: blob for blob in every}.values())

    @property
    def descriptor(self) -> Descriptor:
        """The descriptor of this manifest in an index."""
        kind = self.artifact_type or (self.config.media_type if self.config else "")
        return Descriptor(
            media_type=self.media_type,
            digest=self.digest,
            size=len(self.raw),
            artifact_type=kind,
            annotations=dict(self.annotations) if self.annotations else None,
        )


def parse_manifest(
    raw: bytes,
    media_type: str,
    where: str,
    expected: str | None = None,
    remedy: str = "The registry, or a proxy in front of it, changed it.",
) -> Manifest:
    """Parse the manifest received as `media_type` from `where` (for errors).

    `expected` is its digest, `remedy` what to do if it has another.

    Raises IntegrityError if its digest is another, RegistryError if it cannot be used.
    """
    digest = digest_of(raw, expected or "sha256")
    if expected and digest != expected:
        raise IntegrityError(
            f"The manifest of {where} has the digest {digest}, not {expected}.",
            hint=f"{remedy} Nothing was tagged.",
        )
    try:
        document = msgspec.json.decode(raw, type=_Document)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RegistryError(f"Cannot parse the manifest of {where}: {error}.") from error
    kind = document.media_type or _media_type(media_type, document)
    if document.schema_version != 2 or kind not in (*MANIFESTS, *INDEXES):
        legacy = document.schema_version == 1
        raise RegistryError(
            f"The manifest of {where} has an unsupported media type: {kind or 'none'}, schema "
            f"{document.schema_version}.",
            hint="Schema 1 is obsolete: push the image again with a current tool."
            if legacy
            else None,
        )
    is_index = kind in INDEXES
    config = None if is_index else document.config
    layers = () if is_index else tuple(document.layers or ())
    children = tuple(document.manifests or ()) if is_index else ()
    if not is_index and config is None:
        raise RegistryError(f"The manifest of {where} has no config.")
    _check_count(len(layers), MAX_LAYERS, "layers", where)
    _check_count(len(children), MAX_CHILDREN, "manifests", where)
    _check([d for d in (config, document.subject, *layers, *children) if d], where)
    return Manifest(
        digest,
        kind,
        raw,
        config,
        layers,
        children,
        document.subject,
        document.artifact_type,
        document.annotations,
    )


def build_manifest(
    config: Descriptor,
    layers: Iterable[Descriptor],
    annotations: Mapping[str, str],
    artifact_type: str = "",
    subject: Manifest | None = None,
) -> Manifest:
    """Build the manifest of an artifact: the same bytes for the same content."""
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST}
    if artifact_type:
        document["artifactType"] = artifact_type
    document["config"] = _to_json(config)
    document["layers"] = [_to_json(layer) for layer in layers]
    if subject is not None:
        described = Descriptor.of(subject.raw, subject.media_type)
        document["subject"] = _to_json(described)
    document["annotations"] = annotations
    return parse_manifest(_encode(document), OCI_MANIFEST, "the artifact")


def build_index(children: Iterable[Descriptor]) -> Manifest:
    """Build an index: the same bytes for the same content."""
    manifests = [_to_json(child) for child in children]
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return parse_manifest(_encode(document), OCI_INDEX, "the index")


def select_platforms(index: Manifest, wanted: Sequence[Platform]) -> tuple[Descriptor, ...]:
    """Return the children of an index for some platforms, with their attestations.

    Raises RegistryError, with the available platforms, if one is missing.
    """
    chosen: dict[str, Descriptor] = {}
    for platform in wanted:
        matching = [c for c in index.children if c.platform and c.platform.matches(platform)]
        if not matching:
            available = ", ".join(
                str(c.platform) for c in index.children if c.platform and c.platform.is_known
            )
            raise RegistryError(
                f"The image is not available for {platform}.",
                hint=f"Available platforms: {available or 'none'}.",
            )
        chosen |= {c.digest: c for c in matching}
    attestations = (c for c in index.children if _attested(c) in chosen)
    return tuple((chosen | {c.digest: c for c in attestations}).values())


def filter_index(index: Manifest, children: Iterable[Descriptor]) -> Manifest:
    """Return the index with only some of its children; it has another digest."""
    kept = {child.digest for child in children}
    document = json.loads(index.raw)
    document["manifests"] = [m for m in document["manifests"] if m["digest"] in kept]
    raw = json.dumps(document, separators=(",", ":")).encode()
    return parse_manifest(raw, index.media_type, "the selected platforms")


def parse_platform(text: str) -> Platform:
    """Parse `os/architecture[/variant]`. Raises ImageReferenceError."""
    parts = text.lower().split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ImageReferenceError(
            f"Invalid platform: {text!r}.", hint="Examples: linux/amd64, linux/arm64/v8."
        )
    return Platform(*parts)


def _encode(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def _to_json(descriptor: Descriptor) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(descriptor)
    return {key: value for key, value in found.items() if value not in (None, "")}


def _media_type(content_type: str, document: _Document) -> str:
    """Return the media type by the Content-Type header, or by the content.

    OCI leaves mediaType optional.
    """
    given = content_type.partition(";")[0].strip().lower()
    if given in (*MANIFESTS, *INDEXES):
        return given
    if document.manifests is not None and document.layers is None:
        return OCI_INDEX
    return OCI_MANIFEST if document.layers is not None and document.config else given


def _check_count(count: int, limit: int, what: str, where: str) -> None:
    if count > limit:
        raise RegistryError(
            f"The manifest of {where} has {count} {what}; the limit is {limit}.",
            hint="It may be malicious. Nothing was copied.",
        )


def _check(descriptors: Iterable[Descriptor], where: str) -> None:
    for descriptor in descriptors:
        try:
            check_digest(descriptor.digest)
        except ImageReferenceError as error:
            raise RegistryError(f"The manifest of {where} is invalid: {error.message}") from error
        if not 0 <= descriptor.size < 2**62:
            raise RegistryError(
                f"The manifest of {where} is invalid: a size of {descriptor.size} bytes."
            )


def _attested(child: Descriptor) -> str | None:
    """Return the manifest that a child attests, by BuildKit's annotation."""
    return (child.annotations or {}).get("vnd.docker.reference.digest")
