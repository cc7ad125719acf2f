"""A drawing as PNG, by Pillow: no browser, and no font of the machine. Pure.

The font is the one that Pillow carries. It has no bold, so bold text is drawn with a thin outline.
"""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageFont

from lapwing.design.diagrams.drawing import INK, PAPER, Arrow, Drawing, Rect, Shape, Text

SCALE = 2
"""Pixels for each point: 1,120 across, sharp at the width of an A4 page."""
_FINER = 2
"""It is drawn this much larger and then reduced, which smooths edges."""
_ANCHORS = {"start": "ls", "middle": "ms", "end": "rs"}


def png(drawing: Drawing) -> bytes:
    """The file."""
    factor = SCALE * _FINER
    size = (round(drawing.width * factor), round(drawing.height * factor))
    image = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(image)
    for shape in drawing.shapes:
        _draw(pen, shape, factor)
    small = image.resize((size[0] // _FINER, size[1] // _FINER), Image.Resampling.LANCZOS)
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
        font = ImageFont.load_default(shape.size * factor)
        at = (shape.x * factor, shape.y * factor)
        outline = shape.size * factor / 40 if shape.bold else 0
        pen.text(
            at, shape.text, shape.color, font, _ANCHORS[shape.anchor],
            stroke_width=outline, stroke_fill=shape.color,
        )  # fmt: skip
    elif isinstance(shape, Arrow):
        line = [(shape.x1 * factor, shape.y1 * factor), (shape.x2 * factor, shape.y2 * factor)]
        pen.line(line, INK, factor)
        pen.polygon([(x * factor, y * factor) for x, y in shape.head], INK)
    else:
        x, y, radius = shape.x * factor, shape.y * factor, shape.radius * factor
        frame = (x - radius, y - radius, x + radius, y + radius)
        pen.pieslice(frame, shape.start - 90, shape.end - 90, shape.fill, PAPER, factor)
