"""Draw a PNG with Pillow, without a browser or system fonts."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw, ImageFont

from lapwing.design.diagrams.drawing import INK, PAPER, Arrow, Drawing, Path, Rect, Shape, Text
from lapwing.design.fonts import font_file

SCALE = 2
"""Pixels per point: 1,120 pixels wide, sharp on an A4 page."""
_OVERSAMPLING = 2
"""Draw at this multiple of the size and scale down, for smooth edges."""
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def png(drawing: Drawing) -> bytes:
    """Draw a PNG file."""
    factor = SCALE * _OVERSAMPLING
    size = (round(drawing.width * factor), round(drawing.height * factor))
    image = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(image)
    for shape in drawing.shapes:
        _draw(pen, shape, factor)
    small = image.resize(
        (size[0] // _OVERSAMPLING, size[1] // _OVERSAMPLING), Image.Resampling.LANCZOS
    )
    out = io.BytesIO()
    small.quantize(128).save(out, "PNG", optimize=True)
    return out.getvalue()


def _draw(pen: ImageDraw.ImageDraw, shape: Shape, factor: int) -> None:
    if isinstance(shape, Rect):
        x, y = shape.x * factor, shape.y * factor
        corner = (x + shape.width * factor, y + shape.height * factor)
        radius = shape.radius * factor
        pen.rounded_rectangle(((x, y), corner), radius, shape.fill, shape.stroke, factor)
    elif isinstance(shape, Text):
        font = ImageFont.truetype(font_file(bold=shape.bold), shape.size * factor)
        at = (shape.x * factor, shape.y * factor)
        pen.text(at, shape.text, shape.color, font, _ANCHORS[shape.anchor])
    elif isinstance(shape, Arrow):
        line = [(shape.x1 * factor, shape.y1 * factor), (shape.x2 * factor, shape.y2 * factor)]
        pen.line(line, INK, factor)
        pen.polygon([(x * factor, y * factor) for x, y in shape.head], INK)
    elif isinstance(shape, Path):
        points = [(x * factor, y * factor) for x, y in shape.points]
        width = round(shape.width * factor)
        if shape.fill is not None:
            pen.polygon(points, shape.fill, shape.stroke, width)
            return
        for part in dashes(points, 4 * factor, 3 * factor) if shape.dashed else (points,):
            pen.line(part, shape.stroke, width, joint="curve")
    else:
        x, y, radius = shape.x * factor, shape.y * factor, shape.radius * factor
        frame = (x - radius, y - radius, x + radius, y + radius)
        pen.pieslice(frame, shape.start - 90, shape.end - 90, shape.fill, PAPER, factor)


Point = tuple[float, float]


def dashes(points: Sequence[Point], on: float, off: float) -> Iterator[list[Point]]:
    """Cut a line into dashes of a length, with gaps between them."""
    left, drawn, dash = on, True, [points[0]]
    for start, end in itertools.pairwise(points):
        length, done = math.dist(start, end), 0.0
        while length - done > left:
            done += left
            share = done / length
            at = (start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share)
            if drawn:
                yield [*dash, at]
            dash, drawn = [at], not drawn
            left = on if drawn else off
        left -= length - done
        dash.append(end)
    if drawn and len(dash) > 1:
        yield dash
