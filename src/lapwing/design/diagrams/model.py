"""What a picture is: bands of boxes from top to bottom, or a pie. Pure.

A flow is a column of bands; each band has a title and boxes, and an arrow may lead from a band to
the next one. That is less than Mermaid can say, and enough for the five pictures that a stack has;
in return the same picture can be drawn here without a browser, and nothing can overlap.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

Amount = tuple[str, float]
"""A label and US dollars a month."""


@dataclass(frozen=True, slots=True)
class Box:
    """A thing in a band: its name and, below it, what else to know."""

    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Band:
    """A row of boxes. `chained`: each leads to the next. `to_next`: the label of the arrow to the
    band below; None for no arrow."""

    title: str
    boxes: tuple[Box, ...]
    chained: bool = False
    to_next: str | None = None
    tint: str = "blue"


@dataclass(frozen=True, slots=True)
class Flow:
    """A picture of bands."""

    name: str
    title: str
    bands: tuple[Band, ...]


@dataclass(frozen=True, slots=True)
class Pie:
    """A picture of shares. Slices are in the order of size; all amounts are above 0."""

    name: str
    title: str
    slices: tuple[Amount, ...]

    @property
    def total(self) -> float:
        """The whole pie, US dollars a month."""
        return sum(amount for _, amount in self.slices)


Picture = Flow | Pie


def pie(name: str, title: str, amounts: Iterable[Amount], most: int = 8) -> Pie:
    """A pie of amounts; what is too small for a slice of its own becomes `other`."""
    found = sorted(((label, a) for label, a in amounts if a > 0), key=lambda s: (-s[1], s[0]))
    if len(found) > most:
        rest = sum(amount for _, amount in found[most - 1 :])
        found = [*found[: most - 1], ("other", rest)]
    return Pie(name, title, tuple(found))
