"""Format the architecture document as PDF with fpdf2: A4, the fonts embedded.

The brief form shrinks in steps until it has two pages, the full form by one step if the last page
would be nearly empty. A picture that does not fit on the rest of a
page waits for the next one, and the text continues before it, so that no page is half empty. One
that is too small to read on a portrait page gets a landscape page.

The bytes depend only on the document and the versions of fpdf2 and the fonts. With fallback fonts,
HarfBuzz shapes the text: letters of Arabic are joined, and text runs from right to left. The labels
of pictures contain only characters of the embedded font.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from fpdf import FPDF
from fpdf.enums import RenderStyle, XPos, YPos

from lapwing.design.columns import PADDING, column_widths
from lapwing.design.diagrams.drawing import PAPER, Arrow, Drawing, Path, Rect, Shape, Text, Wedge
from lapwing.design.diagrams.layout import draw
from lapwing.design.fonts import FAMILY, font_file, missing
from lapwing.design.parts import (
    GENERATED,
    Bullets,
    Document,
    Heading,
    Paragraph,
    Part,
    Table,
)
from lapwing.system.fontconfig import FontFile

MAX_PAGES = 2
"""The pages of the brief form."""
_SCALES = (1.0, 0.92, 0.85, 0.78, 0.7)
_SMALLER, _FEW = 0.88, 0.3
"""The scale that is tried if less than this share of the last page has text."""
_MARGIN, _INDENT = 45.0, 10.0
_SMALLEST = 0.6
"""The scale below which the text of a picture is too small: 9 points become 5.4."""
_GAIN = 1.2
"""How much larger a picture has to be on a landscape page."""
_LEAST = 0.75
"""A picture is made smaller, to this part of its size at least, to fit on the rest of a page."""
_ROOM = 120.0
"""What a picture on the top of a page leaves for text, at least: a table's header and a row."""
_WHOLE = 0.35
"""The share of a page up to which a table is not divided."""
_ABOVE = 1.5
"""Above and below the text of a cell."""
_INK, _QUIET, _RULE = (31, 41, 51), (82, 96, 109), (154, 165, 177)


def pdf(document: Document, *, brief: bool = False, fallbacks: Sequence[FontFile] = ()) -> bytes:
    """Format a document. Raises LapwingError if the font or Graphviz is not installed."""
    for scale in _SCALES if brief else _SCALES[1:2]:
        page = _Pages(document, scale, fallbacks, across=not brief)
        if page.pages_count <= MAX_PAGES:
            break
    if not brief and page.share_of_last_page < _FEW:
        smaller = _Pages(document, _SMALLER, fallbacks, across=True)
        if smaller.pages_count < page.pages_count:
            page = smaller
    return bytes(page.output())


def without_glyph(document: Document, fallbacks: Sequence[FontFile] = ()) -> str:
    """Return the characters of a document that no font can show; they become `?`."""
    return missing(_texts(document), fallbacks)


def _texts(document: Document) -> Iterator[str]:
    yield document.title
    for part in document.parts:
        if isinstance(part, Heading | Paragraph):
            yield part.text
        elif isinstance(part, Bullets):
            yield from part.items
        elif isinstance(part, Table):
            yield from (cell for row in (part.header, *part.rows) for cell in row)
        else:
            yield from (s.text for s in draw(part.picture).shapes if isinstance(s, Text))


class _Pages(FPDF):
    """The pages of a document at a scale; `across` allows landscape pages."""

    def __init__(
        self, document: Document, scale: float, fallbacks: Sequence[FontFile], *, across: bool
    ) -> None:
        super().__init__("portrait", "pt", "A4")
        self._scale, self._across = scale, across
        for bold in (False, True):
            self.add_font(FAMILY, "B" if bold else "", font_file(bold=bold))
        self._missing = dict.fromkeys(map(ord, without_glyph(document, fallbacks)), "?")
        self._add_fallbacks(fallbacks)
        self.set_creation_date(datetime(2026, 1, 1, tzinfo=UTC))
        self.set_title(document.title)
        self.set_author(self._shown(document.origin.author))
        self.set_margin(_MARGIN)
        self.c_margin = 0
        self._waiting: list[Drawing] = []
        self._reserved = _ROOM
        self.set_auto_page_break(True, _MARGIN)
        self.add_page()
        self._type(17, "B")
        title = self._shown(document.title)
        self.multi_cell(0, 22 * scale, title, new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        for number, part in enumerate(document.parts):
            self._part(part, document.parts[number + 1 : number + 3])
        self._reserved = 0.0
        while self._waiting:
            self._full_pages()
            if self._waiting:
                super().add_page("portrait")
        self.share_of_last_page = self.get_y() / self.h

    def _add_fallbacks(self, fallbacks: Sequence[FontFile]) -> None:
        names = [f"fallback-{number}" for number in range(len(fallbacks))]
        for name, font in zip(names, fallbacks, strict=True):
            self.add_font(name, "", font.path, collection_font_number=font.number)
        if names:
            self.set_fallback_fonts(names, exact_match=False)
            self.set_text_shaping(True)

    @property
    def pages_count(self) -> int:
        """The number of pages."""
        return len(self.pages)

    def add_page(self, *_args: Any, **_options: Any) -> None:
        """Start a portrait page, after a page for each waiting picture that leaves no room."""
        self._full_pages()
        super().add_page("portrait")

    def _full_pages(self) -> None:
        while self._waiting and not self._fits_from(self.t_margin):
            turned = self._turned(self._waiting[0])
            super().add_page("landscape" if turned else "portrait")
            drawing = self._waiting.pop(0)
            self._draw(drawing, self._widest(drawing) if turned else self._shrink(drawing))

    def header(self) -> None:
        """Draw the waiting pictures that fit on the top of a page, with room for text."""
        while self._waiting and self._fits_from(self.get_y()):
            drawing = self._waiting.pop(0)
            self._draw(drawing, self._fitting(drawing, self.get_y(), self._reserved))

    def _fits_from(self, top: float) -> bool:
        """Return whether the next waiting picture fits below a position, with text below it."""
        drawing = self._waiting[0]
        return not self._turned(drawing) and self._fitting(drawing, top, self._reserved) > 0

    def _fitting(self, drawing: Drawing, top: float, below: float) -> float:
        """Return the scale at which a picture fits below a position; 0 if it would be too small.

        `top` is the position and `below` the space to leave free under it, in points. The scale is
        at least `_LEAST` of that on a page without text.
        """
        shrink = self._shrink(drawing)
        found = min(shrink, (self.dh_pt - _MARGIN - below - top) / drawing.height)
        return found if found >= _LEAST * shrink else 0.0

    def footer(self) -> None:
        """Print what the document is, how it was generated, and the page number."""
        self.set_y(-32)
        self._type(7.5, color=_QUIET)
        text = f"{self.title}. {GENERATED.replace('`', '')}"
        self.cell(0, 10, self._shown(text), new_x=XPos.LMARGIN)
        self.cell(0, 10, f"{self.page_no()} of {{nb}}", align="R")

    def _type(self, size: float, style: str = "", color: tuple[int, int, int] = _INK) -> None:
        self.set_font(FAMILY, style, size * self._scale)
        self.set_text_color(*color)

    def _part(self, part: Part, after: Sequence[Part]) -> None:
        """Add a part. A heading is kept with what is `after` it, up to a table."""
        if isinstance(part, Heading):
            self._room(60)
            height = 30.0
            for each in after:
                if isinstance(each, Table):
                    self._room(height + self._undivided(each, self._widths(each)))
                if not isinstance(each, Paragraph):
                    break
                self._type(9.2)
                lines = math.ceil(self.get_string_width(self._shown(each.text)) / self.epw)
                height += 12.4 * lines
            self.ln(6 * self._scale)
            self._type(11.5, "B")
            self.cell(
                0, 17 * self._scale, self._shown(part.text), new_x=XPos.LMARGIN, new_y=YPos.NEXT
            )
        elif isinstance(part, Paragraph):
            self._paragraph(part.text)
        elif isinstance(part, Bullets):
            for item in part.items:
                self._bullet(item)
        elif isinstance(part, Table):
            self._table(part)
        else:
            self._figure(draw(part.picture))

    def _shown(self, text: str) -> str:
        """Replace characters without a glyph."""
        return text.replace("`", "").translate(self._missing)

    def _paragraph(self, text: str) -> None:
        self._type(9.2)
        height = 12.4 * self._scale
        self.multi_cell(
            0, height, self._shown(text), align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT
        )

    def _bullet(self, text: str) -> None:
        self._type(9.2)
        self.cell(_INDENT, 12.4 * self._scale, "•")
        self.set_left_margin(_MARGIN + _INDENT)
        self._paragraph(text)
        self.set_left_margin(_MARGIN)
        self.set_x(_MARGIN)

    def _room(self, height: float) -> None:
        """Start a new page if the height does not fit on the current one."""
        if self.get_y() + height * self._scale > self.h - _MARGIN:
            self.add_page()

    def _table(self, table: Table) -> None:
        self.ln(3 * self._scale)
        self.set_line_width(0.4)
        self.set_draw_color(*_RULE)
        widths = self._widths(table)
        self._room(self._undivided(table, widths))
        with self.table(
            col_widths=widths,
            line_height=11.5 * self._scale,
            padding=(_ABOVE, PADDING - 1),
            borders_layout="HORIZONTAL_LINES",
            v_align="TOP",
            text_align=tuple("RIGHT" if number else "LEFT" for number in table.numeric),
        ) as grid:
            for cells in (table.header, *table.rows):
                grid.row([self._shown(cell) for cell in cells])
        self.ln(4 * self._scale)

    def _widths(self, table: Table) -> tuple[float, ...]:
        """Return the widths of the columns, and set the font of the cells."""
        columns = zip(table.header, *table.rows, strict=True)
        self._type(8, "B")
        widths = tuple(column_widths(columns, self.epw, self.get_string_width))
        self._type(8)
        return widths

    def _undivided(self, table: Table, widths: tuple[float, ...]) -> float:
        """Estimate the height of a table, whose cells wrap; 0 for one that is divided."""
        height = 0.0
        for cells in (table.header, *table.rows):
            sizes = zip(map(self.get_string_width, cells), widths, strict=True)
            lines = max(math.ceil(text / (width - 2 * PADDING)) or 1 for text, width in sizes)
            height += lines * 11.5 + 2 * _ABOVE / self._scale
        return height if height * self._scale < _WHOLE * self.eph else 0.0

    def _shrink(self, drawing: Drawing) -> float:
        """Return the scale at which a picture fits on a portrait page."""
        width, height = self.dw_pt - 2 * _MARGIN, self.dh_pt - 2 * _MARGIN
        return min(width / drawing.width, (height - 60) / drawing.height, 0.88 * self._scale)

    def _widest(self, drawing: Drawing) -> float:
        """Return the scale at which a picture fits on a landscape page."""
        width, height = self.dh_pt - 2 * _MARGIN, self.dw_pt - 2 * _MARGIN
        return min(width / drawing.width, height / drawing.height, 1.0)

    def _turned(self, drawing: Drawing) -> bool:
        """Return whether a picture needs a landscape page."""
        shrink = self._shrink(drawing)
        return self._across and shrink < _SMALLEST and self._widest(drawing) > shrink * _GAIN

    def _figure(self, drawing: Drawing) -> None:
        """Draw a picture here, or put it on top of the next page if it does not fit."""
        fitting = self._fitting(drawing, self.get_y(), 10)
        if self._waiting or self._turned(drawing) or not fitting:
            self._waiting.append(drawing)
        else:
            self._draw(drawing, fitting)

    def _draw(self, drawing: Drawing, shrink: float) -> None:
        left, top = (self.w - drawing.width * shrink) / 2, self.get_y() + 4
        with self.local_context():
            for shape in drawing.shapes:
                self._shape(shape, left, top, shrink)
        self.set_xy(self.l_margin, top + drawing.height * shrink + 6)

    def _shape(self, shape: Shape, left: float, top: float, shrink: float) -> None:
        def at(x: float, y: float) -> tuple[float, float]:
            return left + x * shrink, top + y * shrink

        self.set_line_width(0.7)
        if isinstance(shape, Rect):
            self.set_fill_color(shape.fill)
            self.set_draw_color(shape.stroke)
            size = (shape.width * shrink, shape.height * shrink)
            self.rect(
                *at(shape.x, shape.y), *size, RenderStyle.DF,
                round_corners=True, corner_radius=shape.radius * shrink,
            )  # fmt: skip
        elif isinstance(shape, Text):
            self._line_of_text(shape, *at(shape.x, shape.y), shrink)
        elif isinstance(shape, Arrow):
            self.set_draw_color(_INK)
            self.set_fill_color(_INK)
            self.line(*at(shape.x1, shape.y1), *at(shape.x2, shape.y2))
            self.polygon([at(x, y) for x, y in shape.head], style=RenderStyle.DF)
        elif isinstance(shape, Path):
            self._path(shape, [at(x, y) for x, y in shape.points], shrink)
        else:
            self._slice(shape, *at(shape.x, shape.y), shape.radius * shrink)

    def _path(self, shape: Path, points: list[tuple[float, float]], shrink: float) -> None:
        self.set_line_width(shape.width * shrink)
        self.set_draw_color(shape.stroke)
        if shape.fill is not None:
            self.set_fill_color(shape.fill)
            self.polygon(points, style=RenderStyle.DF)
            return
        if shape.dashed:
            self.set_dash_pattern(4 * shrink, 3 * shrink)
        self.polyline(points)
        self.set_dash_pattern()

    def _line_of_text(self, shape: Text, x: float, y: float, shrink: float) -> None:
        self.set_font(FAMILY, "B" if shape.bold else "", shape.size * shrink)
        self.set_text_color(shape.color)
        text = self._shown(shape.text)
        shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[shape.anchor]
        self.text(x - self.get_string_width(text) * shift, y, text)

    def _slice(self, shape: Wedge, x: float, y: float, radius: float) -> None:
        """Draw a slice as a polygon with a corner at each degree; the only one is a circle."""
        self.set_fill_color(shape.fill)
        self.set_draw_color(PAPER)
        if shape.end - shape.start >= 360:
            self.circle(x, y, radius, style=RenderStyle.DF)
            return
        count = max(2, math.ceil(shape.end - shape.start))
        angles = (shape.start + (shape.end - shape.start) * i / count for i in range(count + 1))
        turns = [math.radians(angle - 90) for angle in angles]
        arc = [(x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns]
        self.polygon([(x, y), *arc], style=RenderStyle.DF)
