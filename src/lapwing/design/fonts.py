"""The font of PDF and PNG files: Fira Sans, from the wheel that the extra `design` installs.

It has the letters of Latin, Greek and Cyrillic scripts. Its files are embedded, so that a document
looks the same everywhere. Texts of a PDF in other scripts use fonts of the machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from lapwing.errors import LapwingError
from lapwing.system.fontconfig import FontFile

FAMILY = "Fira Sans"
EXTRA_HINT = (
    "Run `pip install 'lapwing-deploy[design]'`, or write Markdown or Mermaid, which need neither."
)


def font_file(*, bold: bool) -> Path:
    """Return the file of the font. Raises LapwingError if it is not installed."""
    try:
        from fontpkg_fira_sans import ROOT
    except ImportError as error:
        raise LapwingError("PNG and PDF need the font Fira Sans.", hint=EXTRA_HINT) from error
    return Path(ROOT, "files", f"FiraSans-{'Bold' if bold else 'Regular'}.ttf")


def missing(texts: Iterable[str], fallbacks: Sequence[FontFile] = ()) -> str:
    """Return the characters that no font has a glyph for, each once, in order."""
    known = set[int]()
    for font in (FontFile(font_file(bold=False)), *fallbacks):
        known |= _characters(font)
    return "".join(dict.fromkeys(c for text in texts for c in text if ord(c) not in known))


def fallbacks(characters: str, match: Callable[[str], FontFile | None]) -> list[FontFile]:
    """Find fonts for characters that the font has no glyph for; `match` finds the best for some."""
    found: list[FontFile] = []
    while characters:
        font = match(characters)
        known = _characters(font) if font is not None else set()
        left = "".join(c for c in characters if ord(c) not in known)
        if font is None or left == characters:
            break
        found.append(font)
        characters = left
    return found


def _characters(font: FontFile) -> set[int]:
    """Return the characters that a font has; none of one that cannot be embedded."""
    from fontTools.ttLib import TTFont, TTLibError

    try:
        with TTFont(font.path, fontNumber=font.number, lazy=True) as read:
            return set(read.getBestCmap() or ())
    except (OSError, TTLibError):
        return set()
