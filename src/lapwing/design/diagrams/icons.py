"""Icons of boxes, drawn from lines and circles in a square of 14 points."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lapwing.design.diagrams.drawing import Path

SIZE = 14.0
Points = tuple[tuple[float, float], ...]
_CIRCLE = 20
"""The corners of a circle."""


def _circle(x: float, y: float, radius: float, tall: float = 1.0) -> Points:
    turns = [math.tau * i / _CIRCLE for i in range(_CIRCLE + 1)]
    return tuple((x + radius * math.cos(t), y + radius * tall * math.sin(t)) for t in turns)


def _rect(x: float, y: float, width: float, height: float) -> Points:
    return (x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)


_ICONS: dict[str, tuple[Points, ...]] = {
    "globe": (
        _circle(7, 7, 6), _circle(7, 7, 2.6, 2.3), ((1, 7), (13, 7)),
        ((2, 4), (12, 4)), ((2, 10), (12, 10)),
    ),
    "users": (
        _circle(7, 4.2, 2.7), ((1.5, 13), (2.5, 9.5), (5, 8.2), (9, 8.2), (11.5, 9.5), (12.5, 13)),
    ),
    "balancer": (
        _circle(7, 2.8, 2), _circle(2.5, 11.5, 2), _circle(7, 11.5, 2), _circle(11.5, 11.5, 2),
        ((7, 4.8), (7, 9.5)), ((6, 4.6), (3.2, 9.6)), ((8, 4.6), (10.8, 9.6)),
    ),
    "pods": (
        ((7, 1), (12.5, 4), (12.5, 10), (7, 13), (1.5, 10), (1.5, 4), (7, 1)),
        ((1.5, 4), (7, 7), (12.5, 4)), ((7, 7), (7, 13)),
    ),
    "static": (
        _rect(2, 1, 10, 12), ((4, 4), (10, 4)), ((4, 7), (10, 7)), ((4, 10), (8, 10)),
    ),
    "database": (
        _circle(7, 3, 5.5, 0.36), ((1.5, 3), (1.5, 11), (3.5, 12.6), (7, 13), (10.5, 12.6),
        (12.5, 11), (12.5, 3)), ((1.5, 7), (3.5, 8.6), (7, 9), (10.5, 8.6), (12.5, 7)),
    ),
    "lock": (
        _rect(2.5, 6, 9, 7), ((4.2, 6), (4.2, 4), (5, 2), (7, 1.2), (9, 2), (9.8, 4), (9.8, 6)),
        ((7, 8.5), (7, 10.5)),
    ),
    "git": (
        _circle(3.5, 3, 1.8), _circle(3.5, 11, 1.8), _circle(10.5, 5, 1.8),
        ((3.5, 4.8), (3.5, 9.2)), ((10.5, 6.8), (10, 8.5), (8, 9.5), (3.5, 9.5)),
    ),
    "registry": (
        _rect(1.5, 1.5, 4.8, 4.8), _rect(7.7, 1.5, 4.8, 4.8), _rect(1.5, 7.7, 4.8, 4.8),
        _rect(7.7, 7.7, 4.8, 4.8),
    ),
    "cycle": (
        tuple(p for p in _circle(7, 7, 5.3)[1:17]), ((8.8, 0.4), (8.7, 3), (11.2, 3.4)),
    ),
    "shield": (
        ((7, 1), (12, 3), (12, 7), (10, 11), (7, 13), (4, 11), (2, 7), (2, 3), (7, 1)),
    ),
    "exit": (
        ((8, 2), (2, 2), (2, 12), (8, 12)), ((5, 7), (13, 7)), ((10.5, 4.5), (13, 7), (10.5, 9.5)),
    ),
}  # fmt: skip


def icon(name: str, x: float, y: float, color: str) -> Iterator[Path]:
    """Draw an icon with its upper left corner at a point; nothing for the empty name."""
    for points in _ICONS[name] if name else ():
        yield Path(tuple((x + px, y + py) for px, py in points), color, width=1.1)
