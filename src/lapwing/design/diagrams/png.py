"""Draw a PNG with Pillow, without a browser or system fonts.

The font is Pillow's. It has no bold face, so bold text is drawn with a thin outline.
"""

from __future__ import annotations

import io

from PIL import Image, ImageDraw, ImageFont

from lapwing.design.diagrams.drawing import INK, PAPER, Arrow, Drawing, Rect, Shape, Text

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
