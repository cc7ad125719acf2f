"""Lapwing as a wheel, made of the files of the installation that runs.

A server gets the same code as the client has, whether that came from an index, a git commit or a
checkout. Its dependencies are those of `requirements.txt`, each with its hashes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import lapwing
from lapwing import DISTRIBUTION, __version__

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
_WHEEL = "Wheel-Version: 1.0\nGenerator: lapwing\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_TIME = (1980, 1, 1, 0, 0, 0)
"""The time of every file: the same installation gives the same wheel."""


@dataclass(frozen=True, slots=True)
class Package:
    """A wheel: its file name, its content, and the name of its folder on a server."""

    name: str
    data: bytes

    @property
    def folder(self) -> str:
        """The version and a digest of the wheel and its requirements."""
        digest = hashlib.sha256(self.data + REQUIREMENTS.read_bytes()).hexdigest()
        return f"{__version__}-{digest[:12]}"


def build() -> Package:
    """Build the wheel. Source: the binary distribution format (PEP 427)."""
    top = Path(lapwing.__file__).parent
    files = {
        f"lapwing/{path.relative_to(top).as_posix()}": path.read_bytes()
        for path in sorted(top.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    name = f"{DISTRIBUTION.replace('-', '_')}-{__version__}"
    about = metadata.distribution(DISTRIBUTION)
    for part in ("METADATA", "entry_points.txt"):
        files[f"{name}.dist-info/{part}"] = (about.read_text(part) or "").encode()
    files[f"{name}.dist-info/WHEEL"] = _WHEEL.encode()
    record = f"{name}.dist-info/RECORD"
    lines = [f"{path},sha256={_digest(data)},{len(data)}" for path, data in files.items()]
    files[record] = "\n".join([*lines, f"{record},,", ""]).encode()
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, data in files.items():
            wheel.writestr(zipfile.ZipInfo(path, _TIME), data, zipfile.ZIP_DEFLATED)
    return Package(f"{name}-py3-none-any.whl", made.getvalue())


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).decode().rstrip("=")
