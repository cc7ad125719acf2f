"""The font of PDF and PNG files: Fira Sans, from the wheel that the extra `design` installs.

It has the letters of Latin, Greek and Cyrillic scripts. Its files are embedded, so that a document
looks the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lapwing.errors import LapwingError

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


def missing(texts: Iterable[str]) -> str:
    """Return the characters that the font has no glyph for, each once, in order."""
    from fontTools.ttLib import TTFont

    with TTFont(font_file(bold=False)) as font:
        known = font.getBestCmap()
    return "".join(dict.fromkeys(c for text in texts for c in text if ord(c) not in known))
