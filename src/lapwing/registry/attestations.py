"""The SBOM, the provenance and the signatures of an image or a chart, pushed as its referrers.

With a signer, each statement is signed in a Sigstore bundle; without one, the provenance is an
unsigned statement. Pushing the same artifact again adds nothing: signatures with a key are
deterministic, and an existing keyless signature of the same statement is used again.

Sources: in-toto attestation framework, Statement v1; SLSA provenance v1
(https://slsa.dev/provenance/v1).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import msgspec

from lapwing import __version__
from lapwing.registry.bundles import read_statements
from lapwing.registry.client import RegistryClient
from lapwing.registry.manifest import OCI_CONFIG, Descriptor, Manifest, build_manifest
from lapwing.registry.parallel import run_all
from lapwing.registry.pull import MemoryBlob
from lapwing.registry.push import Progress, push_artifact
from lapwing.registry.referrers import SIGNATURES, push_referrer, referrers_tag
from lapwing.registry.repository import Repository
from lapwing.registry.signature import (
    BUNDLE,
    SIGNATURE,
    SIGNED,
    SIMPLE_SIGNING,
    STATEMENT_TYPE,
    Signer,
    SigningKey,
    simple_payload,
)
from lapwing.stack.image import Reference
from lapwing.system.git import without_login

SBOM_TYPE = "application/vnd.cyclonedx+json"
SBOM_PREDICATE = "https://cyclonedx.org/bom"
PROVENANCE = "https://slsa.dev/provenance/v1"
STATEMENT = "https://in-toto.io/Statement/v1"
MIRROR = "image-mirror"
"""The kind of provenance of a mirrored image: it names an image instead of a commit."""
_BUNDLE = "dev.sigstore.bundle"


@dataclass(frozen=True, slots=True)
class Attestation:
    """A document that refers to an artifact; `to_sign`: a statement that has to be signed."""

    media_type: str
    content: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)
    to_sign: bool = False


def make_attestations(
    name: str, digest: str, bill: bytes | None, provenance: object, *, signed: bool
) -> list[Attestation]:
    """Return the SBOM (`bill`), if there is one, and the provenance of an artifact.

    `signed`: there is a signer, and each statement has to be signed.
    """
    origin = statement(name, digest, PROVENANCE, provenance)
    found = [] if bill is None else [Attestation(SBOM_TYPE, bill)]
    if not signed:
        return [*found, Attestation(STATEMENT_TYPE, origin)]
    statements = {SIGNED: statement(name, digest, SIGNED, {}), PROVENANCE: origin}
    if bill is not None:
        statements[SBOM_PREDICATE] = statement(name, digest, SBOM_PREDICATE, json.loads(bill))
    return [*found, *statements_to_sign(statements)]


def statements_to_sign(statements: Mapping[str, bytes]) -> Iterator[Attestation]:
    """Yield statements, by the type of their predicate, as attestations that have to be signed."""
    for kind, content in statements.items():
        about = {f"{_BUNDLE}.content": "dsse-envelope", f"{_BUNDLE}.predicateType": kind}
        yield Attestation(BUNDLE, content, about, to_sign=True)


async def sign_attestations(
    source: Repository, digest: str, attestations: Iterable[Attestation], signer: Signer
) -> list[Attestation]:
    """Sign those that have to be signed; what is validly signed in the registry is used again.

    Raises RegistryError and KeylessError.
    """
    found = list(attestations)
    wanted = [each.content for each in found if each.to_sign]
    bundles: dict[bytes, bytes] = {}
    if wanted and not signer.repeats:
        parsed = {content: json.loads(content) for content in wanted}
        async for statement, bundle in read_statements(source, digest, signer.verifier):
            bundles |= {c: bundle for c, document in parsed.items() if document == statement}
    missing = [content for content in wanted if content not in bundles]
    made = await asyncio.to_thread(signer.sign_bundles, missing)
    bundles |= dict(zip(missing, made, strict=True))
    return [
        replace(each, content=bundles[each.content], to_sign=False) if each.to_sign else each
        for each in found
    ]


def statement(name: str, digest: str, predicate_type: str, predicate: object) -> bytes:
    """Return an in-toto statement about the artifact `name` with a digest."""
    algorithm, _, encoded = digest.partition(":")
    document = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {algorithm: encoded}}],
        "predicateType": predicate_type,
        "predicate": predicate,
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def provenance_predicate(
    kind: str, parameters: Mapping[str, Any], dependencies: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the SLSA predicate of something that Lapwing builds, such as an `image-build`.

    A builder is named by a URI.
    """
    return {
        "buildDefinition": {
            "buildType": build_type(kind),
            "externalParameters": parameters,
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            "builder": {"id": f"urn:lapwing:{kind}", "version": {"lapwing": __version__}}
        },
    }


def build_type(kind: str) -> str:
    """Return the URI of a kind of provenance."""
    return f"urn:lapwing:{kind}:v1"


def source_uri(remote: str) -> str:
    """Return the URL of a git remote as SLSA writes it, without user and password."""
    if "://" not in remote and (short := re.fullmatch(r"(?:[^@/\s]+@)?([^:/\s]+):(.+)", remote)):
        remote = f"ssh://{short[1]}/{short[2].lstrip('/')}"
    return f"git+{without_login(remote)}"


async def attach(
    client: RegistryClient,
    target: Reference,
    subject: Manifest,
    attestations: Iterable[Attestation],
    signer: Signer | None,
    progress: Progress,
    annotations: Mapping[str, str] = MappingProxyType({}),
) -> list[Manifest]:
    """Push attestations as referrers of an artifact, and sign it.

    Raises RegistryError, and KeylessError before anything is pushed.

    `annotations` are added to the manifest of each.
    """
    repository = client.repository(target, write=True)
    if signer is not None:
        attestations = await sign_attestations(repository, subject.digest, attestations, signer)

    def push(each: Attestation) -> Coroutine[Any, Any, Manifest]:
        about = {**annotations, **each.annotations}
        return push_referrer(repository, subject, each.media_type, each.content, about, progress)

    referrers = await run_all(push(each) for each in attestations)
    if isinstance(signer, SigningKey):
        await _push_signature(repository, target.name, subject.digest, signer, progress)
    return referrers


async def _push_signature(
    repository: Repository, name: str, digest: str, key: SigningKey, progress: Progress
) -> None:
    """Add a simple signature to those of an artifact, unless it has this one."""
    tag = referrers_tag(digest) + SIGNATURES
    payload = simple_payload(name, digest)
    blob = msgspec.structs.replace(
        Descriptor.of(payload, SIMPLE_SIGNING), annotations={SIGNATURE: key.sign(payload)}
    )
    there = await repository.digest(tag) is not None
    layers = list((await repository.manifest(tag)).layers) if there else []
    if blob in layers:
        return
    layers.append(blob)
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [x.digest for x in layers]}})
    described = Descriptor.of(config.encode(), OCI_CONFIG)
    blobs = [(described, MemoryBlob(config.encode())), (blob, MemoryBlob(payload))]
    manifest = build_manifest(described, layers, {})
    await push_artifact(manifest, blobs, repository, [tag], progress, tag)
