"""OCI image layouts, as a folder or in a tar archive, as source and destination of copies.

A layout holds what a repository of a registry holds, as files: `blobs/<algorithm>/<digest>` has the
blobs and manifests, `index.json` names the images. `Layout` therefore has the methods of
`Repository` that a copy needs. In a folder, an image is added to those that are there; the file
`oci-layout` is the lock of its index, so several processes can copy into it. An archive is written
anew and replaces its file, which has to be an image archive too, at the end. It also has the
`manifest.json` of `docker save`, so that Docker, podman, skopeo, containerd and kind all read it;
one of an older `docker save`, which has only `manifest.json`, can be read.

Sources: the OCI image specification 1.1, "Image Layout"; Docker's image specification 1.2,
"Combined Image JSON + Filesystem Changeset".
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any

from lapwing.errors import ImageMissingError, RegistryError
from lapwing.registry.connection import Bytes
from lapwing.registry.layout_files import (
    FULL_NAME,
    TAG,
    Archive,
    Folder,
    blob_path,
    encode,
    encode_index,
    index_entry,
)
from lapwing.registry.layout_reference import LayoutReference
from lapwing.registry.manifest import (
    OCI_INDEX,
    Descriptor,
    Manifest,
    parse_manifest,
)
from lapwing.registry.pull import BlobSource, BlobVerifier, RemoteBlob, verified
from lapwing.registry.push import BlobOutcome, Counts, Progress
from lapwing.registry.repository import Repository
from lapwing.registry.response import MAX_MANIFEST_BYTES
from lapwing.system import locks

READ_BYTES = 1 << 20
ARCHIVE_TIME = 315532800
"""The time of the files in an archive, so that the same content gives the same bytes."""


class Layout:
    """An open layout. `name` is its name in errors, `image` that of its images for `docker load`.

    Every method raises RegistryError if the layout is invalid, OSError if a file cannot be written.
    """

    def __init__(self, name: str, files: Folder | Archive, image: str = "") -> None:
        self._name = name
        self._files = files
        self._image = image
        self._loadable: dict[str, tuple[Manifest, list[str]]] = {}
        self._has_lock = False

    def __str__(self) -> str:
        return self._name

    async def manifest(self, reference: str, size: int | None = None) -> Manifest:
        """Return the manifest at a tag or digest, or the only one.

        Raises ImageMissingError if there is none, IntegrityError if it is another.
        """
        found = reference if ":" in reference else self._find(reference)
        if found is None or not self._files.has(blob_path(found)):
            raise ImageMissingError(
                f"{self} has no image {reference}.", hint=f"It has {', '.join(self._tags())}."
            )
        raw = self._read(blob_path(found))
        return parse_manifest(raw, "", f"{self}@{found}", found, self.remedy(found))

    async def digest(self, reference: str) -> str | None:
        """Return the digest of the manifest at a tag or digest; None if it or a blob is missing.

        So an image with a damaged file that was removed, or is incomplete, is written again.
        """
        found = reference if ":" in reference else self._find(reference)
        return found if found and await self._is_complete(found) else None

    async def _is_complete(self, digest: str) -> bool:
        try:
            manifest = await self.manifest(digest)
        except RegistryError:
            return False
        return all([await self.has_blob(b) for b in manifest.blobs if not b.is_foreign])

    async def has_blob(self, blob: Descriptor) -> bool:
        """Return whether it has a blob; a file of another size is incomplete."""
        return self._files.size(blob_path(blob.digest)) == blob.size

    async def read(self, verifier: BlobVerifier, offset: int) -> AsyncGenerator[Bytes, None]:
        """Stream the bytes of a blob from an offset on, not verified yet."""
        try:
            file = self._files.open(blob_path(verifier.digest))
        except OSError as error:
            raise ImageMissingError(
                f"{self} lacks blob {verifier.digest} of a manifest."
            ) from error
        with file:
            file.seek(offset)
            while data := file.read(READ_BYTES):
                yield data

    def remedy(self, digest: str) -> str:
        """Return the cause and the next step for a damaged blob: a file of this layout."""
        if isinstance(self._files, Archive):
            return f"{self} is damaged or incomplete: write the archive again."
        path = self._files.path / blob_path(digest)
        return f"{path} is damaged or incomplete: remove it and write the image to {self} again."

    async def push(
        self,
        blob: Descriptor,
        source: BlobSource,
        progress: Progress | None = None,
        counts: Counts | None = None,
        *,
        where: str,
    ) -> None:
        """Write a blob if it is not there. `where` names the source in errors.

        Raises IntegrityError if the content differs from the descriptor.
        """
        outcome: BlobOutcome = "present"
        if progress is not None:
            progress.begin(blob.digest, blob.size)
        if not await self.has_blob(blob):
            outcome = "copied"
            verifier = BlobVerifier(blob.digest, blob.size, where, source.remedy(blob.digest))
            with self._folder.create(blob_path(blob.digest)) as file:
                async for data in verified(source.read(verifier, 0), verifier):
                    file.write(data)
                    if progress is not None:
                        progress.advance(blob.digest, len(data))
        if counts is not None:
            counts.blobs[outcome] += 1
            counts.sent += blob.size if outcome == "copied" else 0
        if progress is not None:
            progress.end(blob.digest, outcome)

    async def put_manifest(self, pushed: Manifest, reference: str) -> None:
        """Write a manifest, and name it if `reference` is a tag."""
        self._folder.write(blob_path(pushed.digest), pushed.raw)
        if ":" not in reference:
            self.name_image(pushed, reference, self._image)

    async def ensure_manifest(self, manifest: Manifest, reference: str) -> bool:
        """Write a manifest unless the tag or digest names it; return whether it was written."""
        if await self.digest(reference) == manifest.digest:
            return False
        await self.put_manifest(manifest, reference)
        return True

    def name_image(self, root: Manifest, tag: str, image: str = "") -> None:
        """List an image in the index, under a tag, or under none if it is empty."""
        name = f"{image}:{tag}" if image and tag else tag
        with self.locked():
            kept = [e for e in self._entries() if not tag or _names(e).isdisjoint({tag, name})]
            self._folder.write("index.json", encode_index([*kept, index_entry(root, tag, name)]))
        if not root.is_index and root.config is not None:
            self._loadable.setdefault(root.digest, (root, []))[1].append(name)

    def docker_manifest(self) -> bytes:
        """Return the `manifest.json` of `docker save` for the images that were named here."""
        return encode(
            [
                {
                    "Config": blob_path(root.config.digest),
                    "RepoTags": [name for name in names if name],
                    "Layers": [blob_path(layer.digest) for layer in root.layers],
                }
                for root, names in self._loadable.values()
                if root.config is not None
            ]
        )

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock of the index, so that no other process changes it meanwhile."""
        if self._has_lock:
            yield
            return
        with locks.hold(self._folder.marker()):
            self._has_lock = True
            try:
                yield
            finally:
                self._has_lock = False

    @property
    def _folder(self) -> Folder:
        assert isinstance(self._files, Folder)
        return self._files

    def _entries(self) -> list[dict[str, Any]]:
        """Return the images in the index; none in a new layout."""
        if not self._files.has("index.json"):
            return []
        raw = self._read("index.json")
        parse_manifest(raw, OCI_INDEX, str(self))
        entries: list[dict[str, Any]] = json.loads(raw)["manifests"]
        return entries

    def _tags(self) -> list[str]:
        return sorted({min(_names(e) or {e["digest"]}, key=len) for e in self._entries()})

    def _find(self, tag: str) -> str | None:
        """Return the digest of the image with a tag, or of the only one if it is empty."""
        entries = self._entries()
        if tag:
            entries = [e for e in entries if tag in {n.rpartition(":")[2] for n in _names(e)}]
        digests = {entry["digest"] for entry in entries}
        if len(digests) > 1:
            raise RegistryError(
                f"{self} has several images.", hint=f"Name one of {', '.join(self._tags())}."
            )
        return str(digests.pop()) if digests else None

    def _read(self, name: str) -> bytes:
        with self._files.open(name) as file:
            raw = file.read(MAX_MANIFEST_BYTES + 1)
        if len(raw) > MAX_MANIFEST_BYTES:
            raise RegistryError(f"{name} of {self} is larger than {MAX_MANIFEST_BYTES} bytes.")
        return raw


@contextlib.contextmanager
def open_layout(reference: LayoutReference) -> Iterator[Layout]:
    """Open a layout to read. Raises RegistryError if it is missing or not a layout."""
    import tarfile

    with contextlib.ExitStack() as stack:
        try:
            files: Folder | Archive
            if reference.is_archive:
                archive = stack.enter_context(tarfile.open(reference.path))
                files = Archive(archive)
            else:
                files = Folder(reference.path)
            layout = Layout(str(reference.path), files)
            if not files.has("index.json"):
                raise FileNotFoundError("it has no index.json")
        except (OSError, tarfile.TarError, EOFError, LookupError, TypeError, ValueError) as error:
            raise RegistryError(
                f"{reference.path} cannot be read as an image layout: "
                f"{getattr(error, 'strerror', None) or error}."
            ) from error
        yield layout


@contextlib.contextmanager
def create_layout(reference: LayoutReference, image: str = "") -> Iterator[Layout]:
    """Open a layout to write; an archive is there when the block ends without an error.

    `image` is the name of its images for `docker load`. Raises RegistryError if there is something
    else, which would be lost or mixed with it, OSError if it cannot be written.
    """
    import tempfile

    path = reference.path
    if not reference.is_archive:
        if not Folder(path).is_layout_or_empty():
            raise RegistryError(
                f"{path} is not an image layout, and not empty.", hint="Name another folder."
            )
        yield Layout(str(path), Folder(path), image)
        return
    if path.exists() and (not path.is_file() or path.stat().st_size):
        _check_is_archive(reference)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as scratch:
        layout = Layout(str(path), Folder(Path(scratch)), image)
        yield layout
        _pack(Path(scratch), layout.docker_manifest(), Path(scratch) / "archive")
        (Path(scratch) / "archive").replace(path)


def _check_is_archive(reference: LayoutReference) -> None:
    """Check that a file which is to be replaced is an image archive. Raises RegistryError."""
    try:
        with open_layout(reference):
            return
    except RegistryError as error:
        raise RegistryError(
            f"{reference.path} already exists and is not an image archive; it was not replaced.",
            hint="Name another file, or remove this one.",
        ) from error


def _pack(folder: Path, docker_manifest: bytes, archive: Path) -> None:
    """Write an archive of a layout, the same bytes for the same content. Files are removed."""
    import tarfile

    (folder / "manifest.json").write_bytes(docker_manifest)
    blobs = sorted(path for path in (folder / "blobs").rglob("*") if path.is_file())
    names = [folder / name for name in ("index.json", "manifest.json")]
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as made:
        for path in (folder / "oci-layout", *blobs, *names):
            member = tarfile.TarInfo(str(path.relative_to(folder)))
            member.size, member.mode, member.mtime = path.stat().st_size, 0o644, ARCHIVE_TIME
            with path.open("rb") as file:
                made.addfile(member, file)
            path.unlink()


def blobs_of(source: Repository | Layout) -> BlobSource:
    """Return what reads the blobs of a repository or layout."""
    return source if isinstance(source, Layout) else RemoteBlob(source)


def _names(entry: dict[str, Any]) -> set[str]:
    found = entry.get("annotations") or {}
    return {found[key] for key in (TAG, FULL_NAME) if found.get(key)}
