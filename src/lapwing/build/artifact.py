"""Pushing a release as an OCI artifact, so that what was built and scanned is kept beside images.

The bundle is one archive of the release's `app` and `lib`, made the same way each time: names in
order, no owner, no time. So the same release has the same digest, a registry that has it is sent
nothing, and a tag is a name for bytes. Dependencies are not in it: its lock file names them.

Source: the OCI image specification 1.1, "Guidelines for Artifact Usage".
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import AsyncGenerator
from pathlib import Path

from lapwing.build.release import Release
from lapwing.registry import artifact, manifest
from lapwing.registry.copy import Progress
from lapwing.registry.manifest import Descriptor, Manifest
from lapwing.registry.pull import Content, Held
from lapwing.registry.repository import Repository
from lapwing.registry.streams import Piece
from lapwing.registry.tally import Tally
from lapwing.stack.image import digest_of

RELEASE = "application/vnd.lapwing.release.v1"
ARCHIVE = "application/vnd.lapwing.release.v1.tar"
EMPTY = b"{}"
PIECE = 1024 * 1024
"""Bytes read from the archive at once."""


class Filed:
    """Content that is in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def pieces(self, tally: Tally, offset: int) -> AsyncGenerator[Piece, None]:
        """The bytes from `offset` to the end."""
        with self._path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(PIECE):
                yield piece


def pack(folder: Path, archive: Path) -> None:
    """Write a release's files to an archive, the same bytes for the same files. Raises OSError."""
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as made:
        for part in ("app", "lib"):
            for path in sorted([folder / part, *(folder / part).rglob("*")]):
                if path.is_symlink() or path.exists():
                    name = str(path.relative_to(folder))
                    made.add(path, name, recursive=False, filter=_bare)


async def push(
    release: Release, archive: Path, target: Repository, tags: tuple[str, ...], progress: Progress
) -> Manifest:
    """Push a packed release under some tags; what is there is not sent again.

    Raises RegistryError; then no tag was written but those before the one that was refused.
    """
    config = Descriptor(media_type=manifest.OCI_EMPTY, digest=digest_of(EMPTY), size=len(EMPTY))
    layer = _described(archive)
    made = _manifest(release, config, layer)
    blobs: list[tuple[Descriptor, Content]] = [(config, Held(EMPTY)), (layer, Filed(archive))]
    await artifact.push(made, blobs, target, tags, progress, release.name)
    return made


def _described(archive: Path) -> Descriptor:
    with archive.open("rb") as file:
        digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    return Descriptor(media_type=ARCHIVE, digest=digest, size=archive.stat().st_size)


def _manifest(release: Release, config: Descriptor, layer: Descriptor) -> Manifest:
    raw = manifest.encode(
        {
            "schemaVersion": 2,
            "mediaType": manifest.OCI_MANIFEST,
            "artifactType": RELEASE,
            "config": manifest.plain(config),
            "layers": [manifest.plain(layer)],
            "annotations": {"org.opencontainers.image.title": release.name},
        }
    )
    return manifest.read(raw, manifest.OCI_MANIFEST, f"release {release.name}")


def _bare(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    return member
