"""Verify what is stored beside an image: its signature, its provenance and its SBOM.

Only what the public key has signed counts, and only if it names the digest of the image. A mirrored
image has no SBOM: its provenance is that of a copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lapwing.errors import ImageMissingError
from lapwing.observed.checks import CheckResult
from lapwing.registry.attestations import (
    MIRROR,
    PROVENANCE,
    SBOM_PREDICATE,
    build_type,
)
from lapwing.registry.client import RegistryClient
from lapwing.registry.inspect import read_blob
from lapwing.registry.manifest import Manifest
from lapwing.registry.referrers import SIGNATURES, list_referrers, referrers_tag
from lapwing.registry.repository import Repository
from lapwing.registry.signature import (
    BUNDLE_PREFIX,
    SIGNATURE,
    SIGNED,
    SIMPLE_SIGNING,
    PublicKey,
    is_simple_payload_of,
    open_bundle,
)
from lapwing.stack.image import Reference

MAX_DOCUMENT_BYTES = 32 * 1024 * 1024
"""The largest signature or attestation that is read."""


@dataclass(slots=True)
class _Proven:
    """What the key has signed about a digest."""

    simple: bool = False
    statements: dict[str, Mapping[str, Any]] = field(default_factory=dict)


async def verify_image(
    client: RegistryClient, reference: Reference, key: PublicKey
) -> list[CheckResult]:
    """Check the signature, the provenance and the SBOM of an image. Raises RegistryError."""
    source = client.repository(reference)
    digest = (await source.manifest(reference.wanted)).digest
    simple = await _has_simple_signature(source, digest, key)
    proven = _Proven(simple, await read_statements(source, digest, key))
    return list(_results(reference, digest, proven))


async def read_statements(
    source: Repository, digest: str, key: PublicKey
) -> dict[str, Mapping[str, Any]]:
    """Return the statements about a digest that the key has signed, by the predicate's type."""
    found: dict[str, Mapping[str, Any]] = {}
    for descriptor in await list_referrers(source, digest):
        # Some registries list another type than that of the manifest.
        manifest = await source.manifest(descriptor.digest, descriptor.size)
        if manifest.artifact_type.startswith(BUNDLE_PREFIX):
            for content in await read_documents(source, manifest):
                statement = open_bundle(content, key, digest)
                if statement is not None:
                    found[str(statement.get("predicateType"))] = statement
    return found


async def _has_simple_signature(source: Repository, digest: str, key: PublicKey) -> bool:
    try:
        manifest = await source.manifest(referrers_tag(digest) + SIGNATURES)
    except ImageMissingError:
        return False
    for layer in manifest.layers:
        signature = (layer.annotations or {}).get(SIGNATURE)
        if layer.media_type == SIMPLE_SIGNING and signature and layer.size <= MAX_DOCUMENT_BYTES:
            payload = await read_blob(source, layer)
            if key.verifies(signature, payload) and is_simple_payload_of(payload, digest):
                return True
    return False


async def read_documents(source: Repository, manifest: Manifest) -> list[bytes]:
    """Return the documents in a referrer, except those that are too large."""
    small = [layer for layer in manifest.layers if layer.size <= MAX_DOCUMENT_BYTES]
    return [await read_blob(source, layer) for layer in small]


def _results(reference: Reference, digest: str, proven: _Proven) -> list[CheckResult]:
    signed = proven.simple or SIGNED in proven.statements
    formats = [
        name
        for name, found in (
            ("simple signing", proven.simple),
            ("Sigstore bundle", SIGNED in proven.statements),
        )
        if found
    ]
    provenance = proven.statements.get(PROVENANCE)
    bill = proven.statements.get(SBOM_PREDICATE)
    missing = "no document that this key has signed"
    results = [
        CheckResult(
            "signature",
            signed,
            f"{reference.name}@{digest} ({', '.join(formats)})"
            if signed
            else f"{reference.name}@{digest} has no signature of this key",
        ),
        CheckResult(
            "provenance", provenance is not None, _origin(provenance) if provenance else missing
        ),
    ]
    if bill is not None or not _is_mirrored(provenance):
        results.append(CheckResult("sbom", bill is not None, _packages(bill) if bill else missing))
    return results


def _is_mirrored(provenance: Mapping[str, Any] | None) -> bool:
    """Return whether a provenance is that of a copy."""
    try:
        kind: object = (provenance or {})["predicate"]["buildDefinition"]["buildType"]
    except (KeyError, TypeError):
        return False
    return kind == build_type(MIRROR)


def _origin(statement: Mapping[str, Any]) -> str:
    """Describe where an image comes from, by its provenance; another builder's may have less."""
    try:
        definition = statement["predicate"]["buildDefinition"]
        dependencies = definition["resolvedDependencies"]
        if _is_mirrored(statement):
            [source] = dependencies
            [(algorithm, digest)] = source["digest"].items()
            return f"copy of {source['name']}@{algorithm}:{digest}"
        source = next(d for d in dependencies if "gitCommit" in d.get("digest", {}))
        commit, uri = source["digest"]["gitCommit"], source.get("uri", "a repository without URL")
        return f"commit {commit} of {uri}"
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration):
        return "names no commit"


def _packages(statement: Mapping[str, Any]) -> str:
    predicate = statement.get("predicate")
    components = predicate.get("components") if isinstance(predicate, dict) else None
    return f"{len(components) if isinstance(components, list) else 0} components"
