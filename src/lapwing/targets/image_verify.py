"""Verify what is stored beside an image: its signature, its provenance and its SBOM.

Only what the key or the identity has signed counts, and only if it names the digest of the image. A
mirrored image has no SBOM: its provenance is that of a copy.
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
from lapwing.registry.bundles import MAX_DOCUMENT_BYTES, read_statements
from lapwing.registry.client import RegistryClient
from lapwing.registry.inspect import read_blob
from lapwing.registry.referrers import SIGNATURES, referrers_tag
from lapwing.registry.repository import Repository
from lapwing.registry.signature import (
    SIGNATURE,
    SIGNED,
    SIMPLE_SIGNING,
    PublicKey,
    Verifier,
    is_simple_payload_of,
)
from lapwing.stack.image import Reference


@dataclass(slots=True)
class _Proven:
    """What the key or the identity has signed about a digest."""

    simple: bool = False
    statements: dict[str, Mapping[str, Any]] = field(default_factory=dict)


async def verify_image(
    client: RegistryClient, reference: Reference, verifier: Verifier
) -> list[CheckResult]:
    """Check the signature, the provenance and the SBOM of an image. Raises RegistryError."""
    source = client.repository(reference)
    digest = (await source.manifest(reference.wanted)).digest
    proven = _Proven()
    if isinstance(verifier, PublicKey):
        proven.simple = await _has_simple_signature(source, digest, verifier)
    async for statement, _ in read_statements(source, digest, verifier):
        proven.statements[str(statement.get("predicateType"))] = statement
    return list(_results(reference, digest, proven, verifier.kind))


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


def _results(reference: Reference, digest: str, proven: _Proven, kind: str) -> list[CheckResult]:
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
    missing = f"no document that this {kind} has signed"
    results = [
        CheckResult(
            "signature",
            signed,
            f"{reference.name}@{digest} ({', '.join(formats)})"
            if signed
            else f"{reference.name}@{digest} has no signature of this {kind}",
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
