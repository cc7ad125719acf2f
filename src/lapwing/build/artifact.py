"""Pushing a release as an OCI artifact, so that what was built and scanned is kept beside images.

The bundle is one archive of the release's `app`, made the same way each time: names in order, no
owner, no time. So the same release has the same digest, a registry that has it is sent nothing, and
a tag is a name for bytes. Dependencies that came from a layer are not in it: the lock file names
them.

Source: the OCI image specification 1.1, "Guidelines for Artifact Usage".
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import AsyncGenerator
from pathlib import Path

from lapwing.build.release import Release
from lapwing.registry.connection import Bytes
from lapwing.registry.manifest import OCI_EMPTY, Descriptor, Manifest, build_manifest
from lapwing.registry.pull import BlobSource, BlobVerifier, MemoryBlob
from lapwing.registry.push import Progress, push_artifact
from lapwing.registry.repository import Repository

RELEASE = "application/vnd.lapwing.release.v1"
ARCHIVE = "application/vnd.lapwing.release.v1.tar"
EMPTY = b"{}"
READ_BYTES = 1024 * 1024
"""Bytes read from the archive at once."""


class FileBlob:
    """A blob in a file; a `cached` one is alone in its folder of the cache."""

    def __init__(self, path: Path, *, cached: bool = False) -> None:
        self.path = path
        self._cached = cached

    def remedy(self, digest: str) -> str:
        """Return the cause and the next step for a damaged blob: this file."""
        remove = f"remove {self.path.parent} and " if self._cached else ""
        return f"{self.path} is damaged or incomplete: {remove}run the command again."

    async def read(self, verifier: BlobVerifier, offset: int) -> AsyncGenerator[Bytes, None]:
        """Stream the bytes from `offset` to the end. Raises IntegrityError if it is missing."""
        if not self.path.is_file():
            raise verifier.error("is missing")
        with self.path.open("rb") as file:
            file.seek(offset)
            while data := file.read(READ_BYTES):
                yield data


def pack(release: Release, folder: Path, archive: Path) -> None:
    """Write a release's files to an archive, the same bytes for the same files. Raises OSError."""
    app = folder / "app"
    has_modules = release.kind == "process" and release.layers
    left_out = app / "node_modules" if has_modules else None
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as made:
        for path in sorted([app, *app.rglob("*")]):
            if left_out is None or not path.is_relative_to(left_out):
                made.add(path, str(path.relative_to(folder)), recursive=False, filter=_bare)


async def push(
    release: Release, archive: Path, target: Repository, tags: tuple[str, ...], progress: Progress
) -> Manifest:
    """Push a packed release under some tags; what is there is not sent again.

    Raises RegistryError; then no tag was written but those before the one that was refused.
    """
    config, layer = Descriptor.of(EMPTY, OCI_EMPTY), _descriptor(archive)
    annotations = {"org.opencontainers.image.title": release.name}
    manifest = build_manifest(config, [layer], annotations, artifact_type=RELEASE)
    blobs: list[tuple[Descriptor, BlobSource]] = [
        (config, MemoryBlob(EMPTY)),
        (layer, FileBlob(archive)),
    ]
    await push_artifact(manifest, blobs, target, tags, progress, release.name)
    return manifest


def _descriptor(archive: Path) -> Descriptor:
    with archive.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return Descriptor(media_type=ARCHIVE, digest=digest, size=archive.stat().st_size)


def _bare(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member
