"""Shapes of a drawing, the same for SVG, PNG and PDF.

Units are points; x goes right, y down. The width of text is estimated by classes of letters,
slightly wider than Helvetica, so that text fits in any sans-serif font of a viewer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

INK, QUIET, PAPER = "#1f2933", "#52606d", "#ffffff"
TINTS = {
    "blue": ("#eef4fb", "#7aa5d2"),
    "violet": ("#f3effb", "#a58bd3"),
    "green": ("#edf7f0", "#7dbb92"),
    "orange": ("#fdf3e7", "#dba75f"),
    "grey": ("#f3f4f6", "#9aa5b1"),
    "white": ("#ffffff", "#9aa5b1"),
}
"""The fill and the border of frames."""
SLICES = (
    "#4c78a8", "#f2a541", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#9aa5b1",
)  # fmt: skip
"""The colors of a pie chart."""
_BREAKS = "_/.:-"
"""A long word is split after one of these characters."""
_PIECE = re.compile(rf"[^\s{_BREAKS}]+[{_BREAKS}]*|[{_BREAKS}]+")


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle with rounded corners."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str
    radius: float = 5


@dataclass(frozen=True, slots=True)
class Text:
    """One line of text; `y` is its baseline."""

    x: float
    y: float
    text: str
    size: float
    bold: bool = False
    color: str = INK
    anchor: Literal["start", "middle", "end"] = "start"


@dataclass(frozen=True, slots=True)
class Arrow:
    """A straight arrow."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def head(self) -> tuple[tuple[float, float], ...]:
        """The three corners of the arrowhead."""
        if self.x1 == self.x2:
            up = -6 if self.y2 > self.y1 else 6
            return (self.x2, self.y2), (self.x2 - 3.5, self.y2 + up), (self.x2 + 3.5, self.y2 + up)
        back = -6 if self.x2 > self.x1 else 6
        return (self.x2, self.y2), (self.x2 + back, self.y2 - 3.5), (self.x2 + back, self.y2 + 3.5)


@dataclass(frozen=True, slots=True)
class Path:
    """A line through points, or an area if it is closed."""

    points: tuple[tuple[float, float], ...]
    stroke: str = INK
    fill: str | None = None
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Wedge:
    """A slice of a pie. Angles in degrees, clockwise from the top."""

    x: float
    y: float
    radius: float
    start: float
    end: float
    fill: str


Shape = Rect | Text | Arrow | Path | Wedge


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes in drawing order."""

    width: float
    height: float
    shapes: tuple[Shape, ...]
    title: str


def width_of(text: str, size: float, *, bold: bool = False) -> float:
    """Estimate the maximum width of a text in points."""
    ems = sum(_em(letter) for letter in text)
    return ems * size * (1.12 if bold else 1.0)


def _em(letter: str) -> float:
    if letter in "ijl.,:;'|!()[]ft /I`":
        return 0.36
    if letter in "mwMW@%":
        return 0.92
    if letter.isupper() or ord(letter) > 127:
        return 0.76
    return 0.58


def longest(text: str, size: float, *, bold: bool = False) -> float:
    """Return the width of the longest piece of a text that `wrap` keeps together."""
    return max(width_of(piece, size, bold=bold) for piece in _PIECE.findall(text))


def wrap(text: str, width: float, size: float, *, bold: bool = False) -> Iterator[str]:
    """Wrap text into lines; split words that are too long, after a hyphen or slash if possible."""
    line = ""
    for word in text.split():
        for number, piece in enumerate(_fitting(word, width, size, bold=bold)):
            together = f"{line} {piece}".strip()
            if not number and width_of(together, size, bold=bold) <= width:
                line = together
                continue
            if line:
                yield line
            line = piece
    if line:
        yield line


def _fitting(word: str, width: float, size: float, *, bold: bool) -> Iterator[str]:
    """Split a word into parts that fit."""
    while width_of(word, size, bold=bold) > width:
        fits = [i for i in range(1, len(word)) if width_of(word[:i], size, bold=bold) <= width]
        cut = max((i for i in fits if word[i - 1] in _BREAKS), default=max(fits, default=1))
        if cut == len(word):
            break
        yield word[:cut]
        word = word[cut:]
    if word:
        yield word
