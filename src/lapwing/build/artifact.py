"""A release as an OCI artifact: pushed by `lapwing ship`, pulled by the agent of a machine.

    config      the record, without times, and with paths that are relative to the release
    layer       `app`, and the first content of its volumes
    layer       its dependencies, for a process: the virtual environment or `node_modules`

Archives are made the same way each time: names in order, no owner, no time. So the same release has
the same digest, a registry that has it is sent nothing, and a change of code sends no dependencies.
What depends on the machine is not in them (`pulled.py` adds it): links to the interpreter, and
compiled files of the virtual environment.

Source: the OCI image specification 1.1, "Guidelines for Artifact Usage".
"""

from __future__ import annotations

import hashlib
import platform
import tarfile
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec

from lapwing.build.release import INITIAL, VENV, Release
from lapwing.registry.connection import Bytes
from lapwing.registry.manifest import Descriptor, Manifest, build_manifest
from lapwing.registry.pull import BlobSource, BlobVerifier, MemoryBlob
from lapwing.registry.push import Progress, push_artifact
from lapwing.registry.repository import Repository

RELEASE = "application/vnd.lapwing.release.v1"
CONFIG = "application/vnd.lapwing.release.config.v1+json"
ARCHIVE = "application/vnd.lapwing.release.v1.tar"
HERE = "@release@"
"""The folder of the release, in the paths of a portable record."""
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


class Portable(msgspec.Struct, frozen=True, kw_only=True):
    """The config of an artifact: the record of a release, and the platform that it is for.

    The platform is None for static files.
    """

    release: Release
    platform: str | None = None


def this_platform() -> str:
    """Return the platform of this machine, such as `linux/x86_64`."""
    return f"{platform.system()}/{platform.machine()}".lower()


def portable(release: Release, folder: Path) -> Portable:
    """Return the record of a release in `folder` as other machines read it."""
    path = [entry.replace(str(folder), HERE) for entry in release.path]
    environment = {k: v.replace(str(folder), HERE) for k, v in release.environment.items()}
    found = msgspec.structs.replace(
        release,
        revision="",
        built=0.0,
        size=0,
        path=tuple(entry for entry in path if entry.startswith(HERE)),
        environment=environment,
    )
    return Portable(release=found, platform=this_platform() if release.kind == "process" else None)


def pack(release: Release, folder: Path, temporary: Path) -> list[Path]:
    """Write a release's files to archives below `temporary`: the same bytes for the same files.

    Raises OSError.
    """
    is_process = release.kind == "process"
    modules = folder / "app" / "node_modules"
    apart = [path for path in (modules, folder / VENV) if is_process and path.is_dir()]
    parts = [[folder / "app", folder / INITIAL], apart]
    archives = []
    for number, tops in enumerate(parts):
        paths = [p for top in tops if top.exists() for p in (top, *top.rglob("*"))]
        if number == 0:
            paths = [p for p in paths if not any(p.is_relative_to(other) for other in apart)]
        if not paths:
            continue
        archive = temporary / f"{number}.tar"
        with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as made:
            for path in sorted(paths):
                name = path.relative_to(folder)
                if not _is_of_machine(name):
                    made.add(path, str(name), recursive=False, filter=_bare)
        archives.append(archive)
    return archives


def _is_of_machine(name: Path) -> bool:
    """Return whether a file of a release is made again on each machine."""
    top, *rest = name.parts
    if top != VENV or not rest:
        return False
    return "__pycache__" in rest or (rest[0] == "bin" and name.name.startswith("python"))


async def push(
    release: Release,
    folder: Path,
    archives: list[Path],
    target: Repository,
    tags: tuple[str, ...],
    progress: Progress,
) -> Manifest:
    """Push the packed release in `folder` under some tags; what is there is not sent again.

    Raises RegistryError; then no tag was written but those before the one that was refused.
    """
    content = msgspec.json.encode(portable(release, folder), order="sorted")
    config, layers = Descriptor.of(content, CONFIG), [_descriptor(a) for a in archives]
    annotations = {"org.opencontainers.image.title": release.name}
    manifest = build_manifest(config, layers, annotations, artifact_type=RELEASE)
    sources = zip(layers, archives, strict=True)
    blobs: list[tuple[Descriptor, BlobSource]] = [(config, MemoryBlob(content))]
    blobs += [(layer, FileBlob(archive)) for layer, archive in sources]
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
