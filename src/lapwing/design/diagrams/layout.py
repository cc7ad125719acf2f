"""Lay out a picture as shapes: bands from top to bottom, boxes in rows, arrows between.

Every band has the height of its boxes and every row starts below the previous one, so that nothing
overlaps with any names and any number of services.
"""

from __future__ import annotations

import functools

from lapwing.design.diagrams.drawing import (
    INK,
    PAPER,
    QUIET,
    SLICES,
    TINTS,
    Arrow,
    Drawing,
    Rect,
    Shape,
    Text,
    Wedge,
    longest,
    width_of,
    wrap,
)
from lapwing.design.diagrams.graph import draw_graph
from lapwing.design.diagrams.model import Band, Box, Flow, Graph, Picture, Pie

WIDTH = 560.0
_MARGIN, _PAD, _GAP, _LINK = 12.0, 12.0, 16.0, 30.0
_TITLE, _BAND, _NAME, _LINE = 14.0, 10.0, 10.5, 9.0
_LEADING = 1.3
_IN_ROW, _IN_CHAIN = 4, 5
_WIDEST = 250.0


@functools.lru_cache(maxsize=16)
def draw(picture: Picture) -> Drawing:
    """Lay out a picture. Raises LapwingError for a graph if Graphviz is not installed."""
    if isinstance(picture, Graph):
        return draw_graph(picture)
    return _pie(picture) if isinstance(picture, Pie) else _flow(picture)


def _flow(flow: Flow) -> Drawing:
    shapes: list[Shape] = [Text(_MARGIN, _MARGIN + _TITLE, flow.title, _fit(flow.title), bold=True)]
    y = _MARGIN + _TITLE + 12
    for number, band in enumerate(flow.bands):
        height = _band(shapes, band, y)
        y += height
        if number + 1 < len(flow.bands):
            if band.to_next is not None:
                middle = WIDTH / 2
                shapes.append(Arrow(middle, y + 2, middle, y + _LINK - 2))
                label = Text(middle + 8, y + _LINK / 2 + 3, band.to_next, _LINE, color=QUIET)
                shapes.append(label)
            y += _LINK if band.to_next is not None else _GAP
    return Drawing(WIDTH, y + _MARGIN, tuple(shapes), flow.title)


def _fit(title: str) -> float:
    """Return the font size at which a title fits on one line."""
    size = _TITLE
    while width_of(title, size, bold=True) > WIDTH - 2 * _MARGIN:
        size -= 0.5
    return size


def _band(shapes: list[Shape], band: Band, top: float) -> float:
    """Draw a band and return its height."""
    fill, stroke = TINTS[band.tint]
    columns = min(_IN_CHAIN if band.chained else _IN_ROW, len(band.boxes))
    word = max(longest(box.title, _NAME, bold=True) for box in band.boxes) + 12
    while columns > 1 and _column(columns) < word:
        columns -= 1
    rows = [band.boxes[i : i + columns] for i in range(0, len(band.boxes), columns)]
    width = min(_WIDEST, _column(columns))
    left = (WIDTH - columns * width - (columns - 1) * _GAP) / 2
    frame = len(shapes)
    y = top + _PAD + _BAND + 6
    shapes.append(Text(_MARGIN + _PAD, top + _PAD + _BAND - 3, band.title, _BAND, True, QUIET))
    for row in rows:
        texts = [_texts(box, width - 12) for box in row]
        height = max(sum(size * _LEADING for _, size, _ in lines) for lines in texts) + 10
        for column, lines in enumerate(texts):
            x = left + column * (width + _GAP)
            _box(shapes, lines, Rect(x, y, width, height, PAPER, stroke))
            if band.chained and column:
                shapes.append(Arrow(x - _GAP + 2, y + height / 2, x - 2, y + height / 2))
        y += height + 10
    y += _PAD - 10
    shapes.insert(frame, Rect(_MARGIN, top, WIDTH - 2 * _MARGIN, y - top, fill, stroke, 8))
    return y - top


def _column(columns: int) -> float:
    """Return the width of a box if there are so many in a row."""
    return (WIDTH - 2 * _MARGIN - 2 * _PAD - _GAP * (columns - 1)) / columns


Line = tuple[str, float, bool]


def _texts(box: Box, width: float) -> list[Line]:
    """Wrap the text of a box: lines with size and whether they are bold."""
    name = [(line, _NAME, True) for line in wrap(box.title, width, _NAME, bold=True)]
    return name + [(t, _LINE, False) for line in box.lines for t in wrap(line, width, _LINE)]


def _box(shapes: list[Shape], lines: list[Line], frame: Rect) -> None:
    shapes.append(frame)
    y = frame.y + 5
    for text, size, bold in lines:
        y += size * _LEADING
        color = INK if bold else QUIET
        middle = frame.x + frame.width / 2
        shapes.append(Text(middle, y - size * 0.3, text, size, bold, color, "middle"))


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def _pie(pie: Pie) -> Drawing:
    radius = 95.0
    x, y = _MARGIN + radius, _MARGIN + _TITLE + 22 + radius
    shapes: list[Shape] = [Text(_MARGIN, _MARGIN + _TITLE, pie.title, _fit(pie.title), bold=True)]
    angle, row = 0.0, y - radius + 8
    total = pie.total
    for number, (label, amount) in enumerate(pie.slices):
        color = SLICES[number % len(SLICES)]
        share = amount / total
        shapes.append(Wedge(x, y, radius, angle, angle + share * 360, color))
        angle += share * 360
        left = x + radius + 30
        shapes.append(Rect(left, row - 8, 10, 10, color, color, 2))
        room = WIDTH - left - 18 - 150
        first, *rest = wrap(label, room, _NAME)
        shapes.append(Text(left + 18, row, first, _NAME))
        shapes.append(Text(WIDTH - 70, row, f"${amount:,.2f}", _NAME, anchor="end"))
        shapes.append(Text(WIDTH - _MARGIN, row, _percent(share), _NAME, color=QUIET, anchor="end"))
        for line in rest:
            row += _NAME * _LEADING
            shapes.append(Text(left + 18, row, line, _NAME))
        row += 19
    shapes.append(Text(x + radius + 48, row, "total", _NAME, bold=True))
    shapes.append(Text(WIDTH - 70, row, f"${total:,.2f}", _NAME, bold=True, anchor="end"))
    bottom = max(y + radius, row) + _MARGIN
    return Drawing(WIDTH, bottom, tuple(shapes), pie.title)
