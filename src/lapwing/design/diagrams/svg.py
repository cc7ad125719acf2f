"""Draw an SVG."""

from __future__ import annotations

import math
from html import escape

from lapwing.design.diagrams.drawing import (
    INK,
    PAPER,
    Arrow,
    Drawing,
    Path,
    Rect,
    Shape,
    Text,
    Wedge,
)

_FONTS = "Helvetica, Arial, 'Liberation Sans', sans-serif"


def svg(drawing: Drawing) -> str:
    """Draw an SVG file, with a title for screen readers."""
    width, height = _n(drawing.width), _n(drawing.height)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img" font-family="{_FONTS}">',
        f"  <title>{escape(drawing.title)}</title>",
        f'  <rect width="{width}" height="{height}" fill="{PAPER}"/>',
        *(f"  {_shape(shape)}" for shape in drawing.shapes),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _shape(shape: Shape) -> str:
    if isinstance(shape, Rect):
        return (
            f'<rect x="{_n(shape.x)}" y="{_n(shape.y)}" width="{_n(shape.width)}" '
            f'height="{_n(shape.height)}" rx="{_n(shape.radius)}" fill="{shape.fill}" '
            f'stroke="{shape.stroke}"/>'
        )
    if isinstance(shape, Text):
        weight = ' font-weight="bold"' if shape.bold else ""
        return (
            f'<text x="{_n(shape.x)}" y="{_n(shape.y)}" font-size="{_n(shape.size)}" '
            f'fill="{shape.color}" text-anchor="{shape.anchor}"{weight}>{escape(shape.text)}</text>'
        )
    if isinstance(shape, Arrow):
        tip = " ".join(f"{_n(x)},{_n(y)}" for x, y in shape.head)
        return (
            f'<path d="M{_n(shape.x1)} {_n(shape.y1)} L{_n(shape.x2)} {_n(shape.y2)}" '
            f'stroke="{INK}" fill="none"/><polygon points="{tip}" fill="{INK}"/>'
        )
    if isinstance(shape, Path):
        return _path(shape)
    return _wedge(shape)


def _path(shape: Path) -> str:
    points = " ".join(f"{_n(x)},{_n(y)}" for x, y in shape.points)
    tag = "polyline" if shape.fill is None else "polygon"
    dashes = ' stroke-dasharray="4 3"' if shape.dashed else ""
    return (
        f'<{tag} points="{points}" fill="{shape.fill or "none"}" stroke="{shape.stroke}" '
        f'stroke-width="{_n(shape.width)}"{dashes}/>'
    )


def _wedge(shape: Wedge) -> str:
    look = f'fill="{shape.fill}" stroke="{PAPER}"'
    if shape.end - shape.start > 359.9:
        at = f'cx="{_n(shape.x)}" cy="{_n(shape.y)}"'
        return f'<circle {at} r="{_n(shape.radius)}" {look}/>'
    (x1, y1), (x2, y2) = (_at(shape, a) for a in (shape.start, shape.end))
    large = int(shape.end - shape.start > 180)
    radius = _n(shape.radius)
    return (
        f'<path d="M{_n(shape.x)} {_n(shape.y)} L{_n(x1)} {_n(y1)} '
        f'A{radius} {radius} 0 {large} 1 {_n(x2)} {_n(y2)} Z" {look}/>'
    )


def _at(shape: Wedge, angle: float) -> tuple[float, float]:
    turn = math.radians(angle - 90)
    return shape.x + shape.radius * math.cos(turn), shape.y + shape.radius * math.sin(turn)


def _n(value: float) -> str:
    """Format a number with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")
