"""The model of a picture: a graph, bands of boxes from top to bottom, or a pie chart.

A graph has boxes in nested groups, and links between them. A flow is a column of bands; each band
has a title and boxes, and an arrow may connect a band to the next one. This is a subset of Mermaid
that can also be drawn without a browser.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

Amount = tuple[str, float]
"""A label and US dollars a month."""


@dataclass(frozen=True, slots=True)
class Box:
    """A box in a band: a title, and lines of text below it."""

    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Band:
    """A row of boxes.

    `chained` draws arrows between the boxes; `to_next` is the label of the arrow to the band below,
    None for no arrow.
    """

    title: str
    boxes: tuple[Box, ...]
    chained: bool = False
    to_next: str | None = None
    tint: str = "blue"


@dataclass(frozen=True, slots=True)
class Flow:
    """A flow diagram: bands from top to bottom."""

    name: str
    title: str
    bands: tuple[Band, ...]


@dataclass(frozen=True, slots=True)
class Node:
    """A box of a graph, with its icon. `slots` are drawn as two fields, the active one first."""

    key: str
    title: str
    lines: tuple[str, ...] = ()
    icon: str = ""
    tint: str = "blue"
    slots: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """A frame around boxes and other groups."""

    key: str
    title: str
    members: tuple[Node | Group, ...]
    tint: str = "grey"


@dataclass(frozen=True, slots=True)
class Link:
    """An arrow between two boxes or groups, by their keys.

    A hidden one is not drawn: it places the target below the source.
    """

    source: str
    target: str
    label: str = ""
    dashed: bool = False
    hidden: bool = False


@dataclass(frozen=True, slots=True)
class Graph:
    """Boxes in nested groups with links between them."""

    name: str
    title: str
    members: tuple[Node | Group, ...]
    links: tuple[Link, ...]


@dataclass(frozen=True, slots=True)
class Pie:
    """A pie chart. Slices are in order of size; all amounts are positive."""

    name: str
    title: str
    slices: tuple[Amount, ...]

    @property
    def total(self) -> float:
        """The total in US dollars per month."""
        return sum(amount for _, amount in self.slices)


Picture = Graph | Flow | Pie


def graph(name: str, title: str, members: tuple[Node | Group, ...], links: Iterable[Link]) -> Graph:
    """Create a graph with the links whose both ends are drawn."""
    known = {member.key for member in flat(members)}
    linked = (x for x in links if x.source in known and x.target in known)
    return Graph(name, title, members, tuple(dict.fromkeys(linked)))


def flat(members: tuple[Node | Group, ...]) -> Iterator[Node | Group]:
    """Yield boxes and frames, each frame before its members."""
    for member in members:
        yield member
        if isinstance(member, Group):
            yield from flat(member.members)


def pie(name: str, title: str, amounts: Iterable[Amount], most: int = 8) -> Pie:
    """Create a pie chart; combine the smallest amounts as `other`."""
    found = sorted(((label, a) for label, a in amounts if a > 0), key=lambda s: (-s[1], s[0]))
    if len(found) > most:
        rest = sum(amount for _, amount in found[most - 1 :])
        found = [*found[: most - 1], ("other", rest)]
    return Pie(name, title, tuple(found))
