"""Layers of an image: compressed archives that are the same bytes for the same files.

Entries are in the order of their names, belong to root, and are readable by everyone, so neither
the user, the umask nor the file system decides the digest. The gzip header has no time and no
system. What is compressed depends on zlib: a Python with zlib-ng writes other bytes.

A layer is cached by a key of its inputs in LAPWING_HOME/images, beside the downloaded base layers.
The most recently used ones are kept, up to `KEPT_BYTES`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import stat
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

import msgspec

from lapwing.build import layers
from lapwing.registry.manifest import Descriptor
from lapwing.settings import Settings
from lapwing.stack.image import Reference
from lapwing.system.files import remove_tree

FORMAT = 1
"""Part of every key: raise it when the same files would make another layer."""
MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
FIXED_TIME = 315532800
"""1980-01-01, the first time that a ZIP archive can hold: the time of files without a commit."""
KEPT_BYTES = 4 * 2**30
"""Bytes of layers kept on this machine."""
_GZIP_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LEVEL = 6
_ARCHIVE = "layer.tar.gz"
_RECORD = "layer.json"

Files = Mapping[str, Path | None]
"""Files by their path in the image, without a leading slash; None is an empty folder."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer: its descriptor in a manifest, the digest of its archive, and where its bytes are.

    `source` is its file, or an image in a registry that has it.
    """

    descriptor: Descriptor
    diff_id: str
    source: Path | Reference


class Record(msgspec.Struct):
    """What describes a layer: its digest and size, and the digest of the archive in it."""

    digest: str
    size: int
    diff_id: str


def tree(
    folder: Path, prefix: str, skip: Callable[[str], bool] = lambda _: False
) -> dict[str, Path | None]:
    """Map a folder and what is in it to a path in the image, without what `skip` names."""
    found: dict[str, Path | None] = {prefix: folder}
    for root, folders, files in os.walk(folder):
        inner = os.path.relpath(root, folder)
        start = "" if inner == "." else f"{inner}/"
        folders[:] = [name for name in folders if not skip(start + name)]
        for name in (*folders, *(name for name in files if not skip(start + name))):
            found[f"{prefix}/{start}{name}"] = Path(root, name)
    return found


def cached(
    settings: Settings, kind: str, facts: Iterable[str], files: Callable[[Path], tuple[Files, int]]
) -> Layer:
    """Return the layer of some facts, made unless it is there.

    `files` gets an empty folder for what it makes, and returns the files with their time. Raises
    what it raises, and OSError; nothing is left then.
    """

    def fill(target: Path) -> Record:
        scratch = target.with_name("files")
        scratch.mkdir()
        try:
            found, time = files(scratch)
            with target.open("wb") as file:
                return write(found, time, file)
        finally:
            remove_tree(scratch)

    return kept(settings, kind, facts, fill)


def kept(
    settings: Settings, kind: str, facts: Iterable[str], fill: Callable[[Path], Record]
) -> Layer:
    """Return the layer of some facts; `fill` writes its file unless it is there."""
    total = hashlib.sha256("\0".join((str(FORMAT), *facts)).encode()).hexdigest()
    folder = settings.images / f"{kind}-{total[:24]}"

    def make(made: Path) -> None:
        record = fill(made / _ARCHIVE)
        (made / _RECORD).write_bytes(msgspec.json.encode(record))

    layers.make(folder, make)
    record = msgspec.json.decode((folder / _RECORD).read_bytes(), type=Record)
    descriptor = Descriptor(media_type=MEDIA_TYPE, digest=record.digest, size=record.size)
    return Layer(descriptor, record.diff_id, folder / _ARCHIVE)


def compress(archive: IO[bytes], target: BinaryIO) -> Record:
    """Write a layer from an archive that is not compressed."""
    packed = _Gzip(target)
    shutil.copyfileobj(archive, packed)
    return packed.finish()


def write(files: Files, time: int, target: BinaryIO) -> Record:
    """Write a layer; folders above the files are added."""
    parents = {str(p) for name in files for p in Path(name).parents if str(p) != "."}
    packed = _Gzip(target)
    with tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for name in sorted(parents | set(files)):
            _add(archive, name, files.get(name), time)
    return packed.finish()


def remove_old(settings: Settings) -> None:
    """Remove the layers that were not used for the longest time, beyond `KEPT_BYTES`."""
    layers.sweep(settings.images)
    found = [p for p in settings.images.glob("[!.]*") if p.is_dir()]
    total = 0
    for folder in sorted(found, key=lambda p: -p.stat().st_mtime):
        total += sum(file.stat().st_size for file in folder.iterdir())
        if total > KEPT_BYTES:
            with contextlib.suppress(BlockingIOError), layers.lock(folder, wait=False):
                layers.discard(folder)


def _add(archive: tarfile.TarFile, name: str, path: Path | None, time: int) -> None:
    member = tarfile.TarInfo(name)
    member.mtime = time
    if path is not None and path.is_symlink():
        member.type, member.linkname, member.mode = tarfile.SYMTYPE, str(path.readlink()), 0o777
    elif path is None or path.is_dir():
        member.type = tarfile.DIRTYPE
        member.mode = 0o1777 if name == "tmp" else 0o755
    else:
        about = path.stat()
        member.size = about.st_size
        member.mode = 0o755 if about.st_mode & stat.S_IXUSR else 0o644
        with path.open("rb") as file:
            archive.addfile(member, file)
        return
    archive.addfile(member)


class _Gzip(io.RawIOBase):
    """A file that is compressed while it is written; counts and hashes both sides."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()
        self._deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        self._check = self._length = self._size = 0
        self._emit(_GZIP_HEADER)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Compress some bytes."""
        self._plain.update(data)
        self._check = zlib.crc32(data, self._check)
        self._length += len(data)
        self._emit(self._deflate.compress(data))
        return len(data)

    def finish(self) -> Record:
        """Write the end, and return what describes the layer."""
        self._emit(self._deflate.flush() + struct.pack("<II", self._check, self._length % 2**32))
        return Record(
            f"sha256:{self._packed.hexdigest()}", self._size, f"sha256:{self._plain.hexdigest()}"
        )

    def _emit(self, data: bytes) -> None:
        self._packed.update(data)
        self._size += len(data)
        self._target.write(data)
