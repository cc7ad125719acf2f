"""The SBOM and the provenance of an image, which are pushed beside it."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lapwing.build.artifact import FileBlob
from lapwing.build.image.builder import ANNOTATION, Image, PlatformImage
from lapwing.build.image.provenance import provenance
from lapwing.errors import SourceError
from lapwing.registry.attestations import Attestation, make_attestations, source_uri
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
from lapwing.stack.image_lock import LOCK
from lapwing.stack.load import LoadedStack
from lapwing.system.git import Git


def image_attestations(
    image: Image,
    loaded: LoadedStack,
    target: Reference,
    folder: Path,
    settings: Settings,
    *,
    signed: bool,
) -> list[Attestation]:
    """Return what is pushed beside an image; `signed`: each statement has to be signed.

    `folder` has the source of the service. Raises ReleaseError.
    """
    bill = make_sbom(image, loaded.stack.stack, folder)
    origin = make_provenance(image, folder, loaded.folder, settings)
    return make_attestations(target.name, image.root.digest, bill, origin, signed=signed)


def creation_time(image: Image) -> dict[str, str]:
    """Return the annotation with the time of an image, which its referrers have, too."""
    name = f"{ANNOTATION}.created"
    return {name: _annotations(image)[name]}


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


def make_provenance(image: Image, folder: Path, root: Path, settings: Settings) -> dict[str, Any]:
    """Return the provenance of an image; `root` is the folder of the stack file."""
    remote = Git(folder, settings.environ, SourceError).ask("remote", "get-url", "origin")
    files = {name: folder / name for name in LOCK_FILES} | {LOCK: root / LOCK}
    digests = {n: digest_of(path.read_bytes()) for n, path in files.items() if path.is_file()}
    return provenance(image, source_uri(remote) if remote else None, digests)


def _annotations(image: Image) -> Mapping[str, str]:
    return image.images[0].manifest.annotations or {}


def _reader(folder: Path) -> Callable[[str], str | None]:
    def read(name: str) -> str | None:
        path = folder / name
        return path.read_text("utf-8", errors="replace") if path.is_file() else None

    return read
