"""The files of an OCI image layout: in a folder, or in a tar archive that is read.

An archive of an older `docker save` has only `manifest.json`: the manifests and the index that it
lacks are made when it is opened, so that it can be read as a layout.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lapwing.registry.manifest import OCI_CONFIG, OCI_INDEX, Descriptor, Manifest, build_manifest

if TYPE_CHECKING:
    import tarfile

LAYER = "application/vnd.oci.image.layer.v1.tar"
MARKER = "oci-layout"
_TEMPORARY = ".tmp-"
TAG = "org.opencontainers.image.ref.name"
FULL_NAME = "io.containerd.image.name"
"""The annotations of an image in the index: its tag, and the name that containerd gives it."""


class Folder:
    """The files of a layout in a folder, by their names in the layout."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read. Raises OSError."""
        return (self.path / name).open("rb")

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""
        return (self.path / name).is_file()

    def size(self, name: str) -> int | None:
        """Return the size of a file; None if there is none."""
        path = self.path / name
        return path.stat().st_size if path.is_file() else None

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[IO[bytes]]:
        """Write a file, which gets its name when the block ends without an error."""
        import tempfile

        if name != MARKER:
            self.marker()  # First, so that a second copy, or a retry, finds a layout.
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=_TEMPORARY)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield file
            Path(made).chmod(0o644)
            Path(made).replace(path)
        except BaseException:
            Path(made).unlink(missing_ok=True)
            raise

    def marker(self) -> Path:
        """Return the file that marks a folder as a layout; write it if it is missing."""
        if not self.has(MARKER):
            self.write(MARKER, b'{"imageLayoutVersion": "1.0.0"}')
        return self.path / MARKER

    def is_layout_or_empty(self) -> bool:
        """Return whether images can be added without mixing them with other files."""
        if self.has(MARKER) or not self.path.exists():
            return True
        return all(path.name.startswith(_TEMPORARY) for path in self.path.iterdir())

    def write(self, name: str, content: bytes) -> None:
        """Write a file from memory."""
        with self.create(name) as file:
            file.write(content)


class Archive:
    """The files of a layout in a tar archive, to read."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._members = {member.name.removeprefix("./"): member for member in archive}
        self._made: dict[str, bytes] = {}
        if "index.json" not in self._members and "manifest.json" in self._members:
            self._add_manifests()

    def open(self, name: str) -> IO[bytes]:
        """Open a file to read. Raises OSError."""
        if name in self._made:
            return io.BytesIO(self._made[name])
        member = self._members.get(name)
        opened = self._archive.extractfile(member) if member else None
        if opened is None:
            raise FileNotFoundError(f"{name} is missing")
        return opened

    def has(self, name: str) -> bool:
        """Return whether there is such a file."""
        return name in self._made or name in self._members

    def size(self, name: str) -> int | None:
        """Return the size of a file; None if there is none."""
        if name in self._made:
            return len(self._made[name])
        return self._members[name].size if name in self._members else None

    def _add_manifests(self) -> None:
        """Make the manifests and the index that an archive of an older `docker save` lacks."""
        children = []
        for entry in json.loads(self.open("manifest.json").read()):
            config = self._add_blob(entry["Config"], OCI_CONFIG)
            layers = [self._add_blob(name, LAYER) for name in entry["Layers"]]
            manifest = build_manifest(config, layers, {})
            self._made[blob_path(manifest.digest)] = manifest.raw
            children += [index_entry(manifest, name) for name in entry.get("RepoTags") or [""]]
        self._made["index.json"] = encode_index(children)

    def _add_blob(self, name: str, media_type: str) -> Descriptor:
        with self.open(name) as file:
            begin = file.read(2)
            file.seek(0)
            digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"  # type: ignore[arg-type]
            size = file.tell()
        self._members[blob_path(digest)] = self._members[name]
        if media_type == LAYER and begin == b"\x1f\x8b":
            media_type += "+gzip"
        return Descriptor(media_type=media_type, digest=digest, size=size)


def blob_path(digest: str) -> str:
    """Return the name of a blob's file in a layout."""
    return "blobs/" + digest.replace(":", "/")


def index_entry(root: Manifest, tag: str, name: str = "") -> dict[str, Any]:
    """Return the entry of an image in the index."""
    entry: dict[str, Any] = {
        "mediaType": root.media_type,
        "digest": root.digest,
        "size": len(root.raw),
    }
    if tag:
        entry["annotations"] = {FULL_NAME: name or tag, TAG: tag}
    return entry


def encode_index(entries: list[dict[str, Any]]) -> bytes:
    """Return the content of index.json."""
    return encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})


def encode(document: object) -> bytes:
    """Encode a JSON document, the same bytes for the same content."""
    return json.dumps(document, separators=(",", ":")).encode()
