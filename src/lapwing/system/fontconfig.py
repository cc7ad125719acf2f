"""Fonts of this machine, found by fontconfig."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lapwing.system import process

_TIMEOUT_S = 30.0
_MAX_CHARACTERS = 500
"""How many characters a question has, so that it fits on a command line."""


@dataclass(frozen=True, slots=True)
class FontFile:
    """A file, and the number of the font in it; a collection has several."""

    path: Path
    number: int = 0


def match(characters: str, environ: Mapping[str, str]) -> FontFile | None:
    """Return the font that has most of these characters; None without fontconfig or any font."""
    wanted = " ".join(f"{ord(c):x}" for c in characters[:_MAX_CHARACTERS])
    pattern = f":charset={wanted}:scalable=true"
    try:
        done = process.run(
            ["fc-match", "--format", "%{file}\t%{index}", pattern], environ, timeout=_TIMEOUT_S
        )
    except OSError:
        return None
    path, _, index = done.stdout.decode(errors="replace").partition("\t")
    # The upper half of the index is an instance of a variable font.
    return FontFile(Path(path), int(index) & 0xFFFF) if path and index.isdecimal() else None
