"""What is pushed beside an image: its SBOM and its provenance, as OCI referrers.

Both follow from the image, so pushing the same image again adds nothing.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path

from lapwing.build.image.base import LOCK
from lapwing.build.image.builder import ANNOTATION, Image
from lapwing.build.image.provenance import PREDICATE, provenance, source_uri, statement
from lapwing.errors import SourceError
from lapwing.registry.client import RegistryClient
from lapwing.registry.manifest import Manifest
from lapwing.registry.push import Progress
from lapwing.registry.referrers import push_referrer
from lapwing.release.sbom import LOCK_FILES, image_component, read_components, sbom
from lapwing.settings import Settings
from lapwing.stack.image import Reference, digest_of
from lapwing.system.git import Git

SBOM_TYPE = "application/vnd.cyclonedx+json"
STATEMENT_TYPE = "application/vnd.in-toto+json"


async def attach(
    client: RegistryClient,
    image: Image,
    target: Reference,
    documents: Mapping[str, bytes],
    progress: Progress,
) -> list[Manifest]:
    """Push documents, by media type, as referrers of a pushed image. Raises RegistryError."""
    repository = client.repository(target, write=True)
    created = {f"{ANNOTATION}.created": _annotations(image)[f"{ANNOTATION}.created"]}
    return [
        await push_referrer(repository, image.root, kind, content, created, progress)
        for kind, content in documents.items()
    ]


def make_sbom(image: Image, stack: str, folder: Path) -> bytes:
    """Return the SBOM of an image: the packages of its lock files, and its base image.

    Raises ReleaseError for a lock file that cannot be parsed.
    """
    annotations = _annotations(image)
    created = datetime.datetime.fromisoformat(annotations[f"{ANNOTATION}.created"])
    commit = (annotations[f"{ANNOTATION}.revision"], int(created.timestamp()))
    base = [image_component(image.base.reference)] if image.base.reference else []
    services = {image.service: read_components(_reader(folder))}
    return sbom(f"{stack}/{image.service}", image.root.digest, commit, services, base)


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
