"""What is pushed beside an image: its SBOM, its provenance, and with a key, signatures.

Everything follows from the image and the key, so pushing the same image again adds nothing.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from lapwing.build.artifact import FileBlob
from lapwing.build.image.base import LOCK
from lapwing.build.image.builder import ANNOTATION, Image, PlatformImage
from lapwing.build.image.config import CONFIG
from lapwing.build.image.provenance import PREDICATE, provenance, source_uri, statement
from lapwing.errors import SigningKeyError, SourceError
from lapwing.registry.client import RegistryClient
from lapwing.registry.manifest import Descriptor, Manifest, build_manifest
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
    SigningKey,
    parse_public_key,
    parse_signing_key,
    read_signing_key,
    sign_bundle,
    simple_payload,
)
from lapwing.release.sbom import (
    LOCK_FILES,
    PYPI,
    image_component,
    installed_components,
    read_components,
    sbom,
)
from lapwing.settings import Settings
from lapwing.stack.image import Reference, digest_of
from lapwing.stack.load import LoadedStack
from lapwing.system.git import Git

SBOM_TYPE = "application/vnd.cyclonedx+json"
SBOM_PREDICATE = "https://cyclonedx.org/bom"
_BUNDLE = "dev.sigstore.bundle"


@dataclass(frozen=True, slots=True)
class Document:
    """A document that is pushed beside an image."""

    media_type: str
    content: bytes
    annotations: Mapping[str, str] = field(default_factory=dict)


async def attach(
    client: RegistryClient,
    image: Image,
    target: Reference,
    documents: Iterable[Document],
    key: SigningKey | None,
    progress: Progress,
) -> list[Manifest]:
    """Push documents as referrers of a pushed image, and sign it. Raises RegistryError."""
    repository = client.repository(target, write=True)
    created = {f"{ANNOTATION}.created": _annotations(image)[f"{ANNOTATION}.created"]}

    def push(each: Document) -> Coroutine[Any, Any, Manifest]:
        about = {**created, **each.annotations}
        return push_referrer(repository, image.root, each.media_type, each.content, about, progress)

    referrers = await run_all(push(each) for each in documents)
    if key is not None:
        await push_signature(repository, target.name, image.root.digest, key, progress)
    return referrers


def make_documents(
    image: Image,
    loaded: LoadedStack,
    target: Reference,
    folder: Path,
    settings: Settings,
    key: SigningKey | None,
) -> list[Document]:
    """Return what is pushed beside an image: with a key, each statement is signed.

    `folder` has the source of the service. Raises ReleaseError.
    """
    bill = make_sbom(image, loaded.stack.stack, folder)
    origin = make_provenance(image, target, folder, loaded.folder, settings)
    if key is None:
        return [Document(SBOM_TYPE, bill), Document(STATEMENT_TYPE, origin)]
    digest = image.root.digest
    statements = {
        SIGNED: statement(target.name, digest, SIGNED, {}),
        PREDICATE: origin,
        SBOM_PREDICATE: statement(target.name, digest, SBOM_PREDICATE, json.loads(bill)),
    }
    return [Document(SBOM_TYPE, bill), *sign_statements(key, statements)]


def sign_statements(key: SigningKey, statements: Mapping[str, bytes]) -> Iterator[Document]:
    """Sign statements, by the type of their predicate."""
    for kind, content in statements.items():
        about = {f"{_BUNDLE}.content": "dsse-envelope", f"{_BUNDLE}.predicateType": kind}
        yield Document(BUNDLE, sign_bundle(key, content), about)


async def push_signature(
    repository: Repository, name: str, digest: str, key: SigningKey, progress: Progress
) -> None:
    """Add a simple signature to those of an image, unless it is there. Raises RegistryError."""
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
    described = Descriptor.of(config.encode(), CONFIG)
    blobs = [(described, MemoryBlob(config.encode())), (blob, MemoryBlob(payload))]
    manifest = build_manifest(described, layers, {})
    await push_artifact(manifest, blobs, repository, [tag], progress, tag)


def find_key(loaded: LoadedStack, path: Path | None, settings: Settings) -> SigningKey | None:
    """Return the private key: that of a file, or of LAPWING_SIGNING_KEY; None if there is none.

    Raises SigningKeyError, also if the stack file has another public key, or has one and there is
    no private key.
    """
    text, signing = settings.signing_key(), loaded.stack.signing
    key = None
    if path is not None:
        key = read_signing_key(path)
    elif text is not None:
        key = parse_signing_key(text, "LAPWING_SIGNING_KEY")
    if signing is None:
        return key
    where = f"`signing: {{key: ...}}` of {loaded.path.name}"
    expected = parse_public_key(signing.key, where)
    if key is None:
        raise SigningKeyError(
            f"The images have to be signed, because the stack file has {where}.",
            hint="Set LAPWING_SIGNING_KEY to the private key (PEM). "
            f"`lapwing image build -e {loaded.environment}` also has `--sign-key FILE`.",
        )
    if key.public.der != expected.der:
        raise SigningKeyError(
            f"The private key does not belong to {where}.",
            hint="Use the other private key, or change the public key.",
        )
    return key


def make_sbom(image: Image, stack: str, folder: Path) -> bytes:
    """Return the SBOM of an image: its packages, and its base image.

    Python packages are those in its layers, if there are any, others those of the lock files.
    Raises ReleaseError for a lock file that cannot be parsed.
    """
    annotations = _annotations(image)
    created = datetime.datetime.fromisoformat(annotations[f"{ANNOTATION}.created"])
    commit = (annotations[f"{ANNOTATION}.revision"], int(created.timestamp()))
    base = [image_component(image.base.reference)] if image.base.reference else []
    packages = read_components(_reader(folder))
    installed = {
        each for platform in image.images for each in installed_components(_made(platform))
    }
    if installed:
        locked = {each for each in packages if not each.purl.startswith(PYPI)}
        packages = sorted(installed | locked)
    services = {image.service: packages}
    return sbom(f"{stack}/{image.service}", image.root.digest, commit, services, base)


def _made(image: PlatformImage) -> Iterator[Path]:
    """Yield the layers of an image that were made here, from the lowest."""
    for layer in image.manifest.layers:
        blob = image.blobs.get(layer.digest)
        if isinstance(blob, FileBlob):
            yield blob.path


def make_provenance(
    image: Image, target: Reference, folder: Path, root: Path, settings: Settings
) -> bytes:
    """Return the provenance of an image; `root` is the folder of the stack file."""
    remote = Git(folder, settings.environ, SourceError).ask("remote", "get-url", "origin")
    files = {name: folder / name for name in LOCK_FILES} | {LOCK: root / LOCK}
    digests = {n: digest_of(path.read_bytes()) for n, path in files.items() if path.is_file()}
    predicate = provenance(image, source_uri(remote) if remote else None, digests)
    return statement(target.name, image.root.digest, PREDICATE, predicate)


def _annotations(image: Image) -> Mapping[str, str]:
    return image.images[0].manifest.annotations or {}


def _reader(folder: Path) -> Callable[[str], str | None]:
    def read(name: str) -> str | None:
        path = folder / name
        return path.read_text("utf-8", errors="replace") if path.is_file() else None

    return read
