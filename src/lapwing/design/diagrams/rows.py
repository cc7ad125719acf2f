"""Arrange many services in rows, so that a picture fits on a page and a screen.

Services with the same links share a frame, and each of those links is drawn once, to the frame.
Rows are made by hidden links, from each box to the one below it: Graphviz and Mermaid both place
the boxes by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from lapwing.design.diagrams.model import Group, Link, Node

MAX_ROW = 6
"""How many services are drawn in one row, with all their links."""
_COLUMNS = 4
"""How many boxes are side by side in several rows."""
_DETAILED = 16
"""With more services than this, a box has only the name and the first line."""
_LEAST = 3
"""How many services need the same links to share a frame."""
_BESIDE = 2
"""How many frames are side by side."""


def arranged(
    boxes: Sequence[Node], links: Sequence[Link]
) -> tuple[tuple[Node | Group, ...], list[Link]]:
    """Return boxes in rows, in frames where their links are equal, and the links to draw.

    A few boxes, which fit in a row, are returned as they are.
    """
    if len(boxes) <= MAX_ROW:
        return tuple(boxes), list(links)
    many = len(boxes) > _DETAILED
    alike: dict[frozenset[Link], list[Node]] = {}
    for box in boxes:
        short = replace(box, lines=box.lines[:1], slots=False) if many else box
        alike.setdefault(_signature(box.key, links), []).append(short)
    shared = [found for found in alike.values() if len(found) >= _LEAST]
    groups = [
        Group(f"group{n}", f"{len(found)} services", tuple(found), "white")
        for n, found in enumerate(shared)
    ]
    rest = [found for box in alike.values() if len(box) < _LEAST for found in box]
    homes = {box.key: group.key for group in groups for box in group.members}
    columns = _COLUMNS // max(1, min(len(groups), _BESIDE))
    hidden = [link for group in groups for link in _below([m.key for m in group.members], columns)]
    hidden += _below([group.key for group in groups], _BESIDE)
    hidden += _below([box.key for box in rest], _COLUMNS)
    if groups and rest:
        hidden.append(Link(groups[-1].key, rest[0].key, hidden=True))
    return (*groups, *rest), [*_merged(links, homes), *hidden]


def _signature(key: str, links: Sequence[Link]) -> frozenset[Link]:
    """Return the links of a box without its key and without labels."""
    own = [replace(link, label="") for link in links if key in (link.source, link.target)]
    return frozenset(
        replace(x, source="") if x.source == key else replace(x, target="") for x in own
    )


def _below(keys: Sequence[str], columns: int) -> Iterator[Link]:
    """Place each box that is not in the last row above one of the next row."""
    for number in range((len(keys) - 1) // columns * columns):
        yield Link(keys[number], keys[min(number + columns, len(keys) - 1)], hidden=True)


def _merged(links: Sequence[Link], homes: dict[str, str]) -> Iterator[Link]:
    """Yield links between frames; a label that differs within a frame is left out."""
    found: dict[Link, set[str]] = {}
    for link in links:
        source, target = (homes.get(key, key) for key in (link.source, link.target))
        found.setdefault(replace(link, source=source, target=target, label=""), set()).add(
            link.label
        )
    for link, labels in found.items():
        moved = {link.source, link.target} & set(homes.values())
        for label in {""} if moved and len(labels) > 1 else sorted(labels):
            yield replace(link, label=label)
