"""Compressed copies of the files of a static service, made once instead of at each request.

`app.js.gz` is beside `app.js`; Caddy serves it to clients that accept gzip. The header has no time
and no name, so the same file has the same copy. A copy that the build made itself (`.gz`, `.br`,
`.zst`) is kept and served; a `.gz` that has other content would be served for its file, so it is an
error.
"""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

from lapwing.errors import BuildError
from lapwing.render.caddy import MIN_COMPRESSED_BYTES, SIDECARS

COMPRESSIBLE = re.compile(
    r"\.(css|csv|html?|ico|js|json|map|md|mjs|otf|svg|ttf|txt|wasm|webmanifest|xml)$", re.IGNORECASE
)
_LEVEL = 9


def precompress(root: Path) -> None:
    """Add compressed copies to a folder. Raises BuildError for a wrong one, and OSError."""
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not path.is_file() or not COMPRESSIBLE.search(path.name):
            continue
        content, copy = path.read_bytes(), path.with_name(path.name + SIDECARS["gzip"])
        if copy.exists():
            _check(copy, path, content, root)
        elif len(content) >= MIN_COMPRESSED_BYTES:
            with copy.open("xb") as file, gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
                packed.write(content)
            if copy.stat().st_size >= len(content):
                copy.unlink()


def _check(copy: Path, path: Path, content: bytes, root: Path) -> None:
    try:
        same = gzip.decompress(copy.read_bytes()) == content
    except (OSError, EOFError, zlib.error):
        same = False
    if not same:
        name = path.relative_to(root)
        raise BuildError(
            f"{copy.relative_to(root)} is served as {name}, but has other content.",
            hint="Remove or rename it: the build makes a compressed copy if there is none.",
        )
