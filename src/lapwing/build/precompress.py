"""Compressed copies of the files of a static service, made once instead of at each request.

`app.js.gz` is beside `app.js`; Caddy serves it to clients that accept gzip, whatever the type of
the file. The header has no time and no name, so the same file has the same copy. A copy that the
build of the site made is kept. A copy with other content would be served instead of its file, so
it is an error.
"""

from __future__ import annotations

import gzip
import os
import re
import zlib
from pathlib import Path

from lapwing.errors import BuildError
from lapwing.render.caddy import GZIPPED, MIN_COMPRESSED_BYTES

COMPRESSIBLE = re.compile(
    r"\.(css|csv|html?|ico|js|json|map|md|mjs|otf|svg|ttf|txt|wasm|webmanifest|xml)$", re.IGNORECASE
)
_LEVEL = 9
_CHUNK_BYTES = 1024 * 1024
_MAX_NAME_BYTES = 255


def precompress(root: Path) -> None:
    """Add compressed copies to a folder. Raises BuildError for an invalid copy, OSError."""
    for path in sorted(root.rglob("*")):
        if path.name.endswith(GZIPPED) and path.is_file():
            _check(path, Path(str(path).removesuffix(GZIPPED)), root)
        elif COMPRESSIBLE.search(path.name) and path.is_file() and not path.is_symlink():
            _compress(path, path.with_name(path.name + GZIPPED))


def _compress(path: Path, copy: Path) -> None:
    """Write a copy, unless one exists or it would not be smaller than the file."""
    content = path.read_bytes()
    is_named = len(os.fsencode(copy.name)) <= _MAX_NAME_BYTES
    if len(content) < MIN_COMPRESSED_BYTES or not is_named or os.path.lexists(copy):
        return
    with copy.open("xb") as file, gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
        packed.write(content)
    if copy.stat().st_size >= len(content):
        copy.unlink()


def _check(copy: Path, path: Path, root: Path) -> None:
    """Raise BuildError if a copy has other content than the file that it is served for."""
    if path.is_file() and not _same(copy, path):
        name = path.relative_to(root)
        raise BuildError(
            f"{copy.relative_to(root)} is served as {name}, but has other content.",
            hint="Remove or rename it: the build makes a compressed copy if there is none.",
        )


def _same(copy: Path, path: Path) -> bool:
    with copy.open("rb") as file, gzip.GzipFile(fileobj=file) as packed, path.open("rb") as plain:
        while True:
            content = plain.read(_CHUNK_BYTES)
            try:
                if packed.read(_CHUNK_BYTES) != content:
                    return False
            except (gzip.BadGzipFile, EOFError, zlib.error):
                return False
            if not content:
                return True
