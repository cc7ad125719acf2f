"""The documents that refer to an artifact, and the signed statements among them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from lapwing.registry.inspect import read_blob
from lapwing.registry.manifest import Manifest
from lapwing.registry.referrers import list_referrers
from lapwing.registry.repository import Repository
from lapwing.registry.signature import BUNDLE_PREFIX, Verifier

MAX_DOCUMENT_BYTES = 32 * 1024 * 1024
"""The largest signature or attestation that is read."""


async def read_documents(source: Repository, manifest: Manifest) -> list[bytes]:
    """Return the documents in a referrer, except those that are too large."""
    small = [layer for layer in manifest.layers if layer.size <= MAX_DOCUMENT_BYTES]
    return [await read_blob(source, layer) for layer in small]


async def read_statements(
    source: Repository, digest: str, verifier: Verifier
) -> AsyncIterator[tuple[Mapping[str, Any], bytes]]:
    """Yield the signed statements about a digest, each with its bundle. Raises RegistryError."""
    for descriptor in await list_referrers(source, digest):
        # Some registries list another type than that of the manifest.
        manifest = await source.manifest(descriptor.digest, descriptor.size)
        if manifest.artifact_type.startswith(BUNDLE_PREFIX):
            for content in await read_documents(source, manifest):
                statement = verifier.open_bundle(content, digest)
                if statement is not None:
                    yield statement, content
