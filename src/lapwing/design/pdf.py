"""The architecture document as PDF, by fpdf2: A4, one or two pages. Pure.

Type shrinks in steps until the document has two pages; a stack with very many services ends with a
longer document rather than with one that nobody can read. The bytes depend on the document and on
the version of fpdf2 only: there is no date in it.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime

from fpdf import FPDF
from fpdf.enums import RenderStyle, XPos, YPos

from lapwing.design.diagrams.drawing import PAPER, Arrow, Drawing, Rect, Shape, Text, Wedge
from lapwing.design.diagrams.layout import draw
from lapwing.design.document import Document, Figure, Heading, Paragraph, Part, Table

PAGES = 2
_SCALES = (1.0, 0.92, 0.85, 0.78)
_MARGIN = 45.0
_FONT = "Helvetica"
_INK, _QUIET = (31, 41, 51), (82, 96, 109)


def pdf(document: Document) -> bytes:
    """The file."""
    for scale in _SCALES:
        page = _Pages(document, scale)
        if page.pages_count <= PAGES:
            break
    return bytes(page.output())


class _Pages(FPDF):
    """The pages of a document at a scale of type and pictures."""

    def __init__(self, document: Document, scale: float) -> None:
        super().__init__("portrait", "pt", "A4")
        self._scale = scale
        self.set_creation_date(datetime(2026, 1, 1, tzinfo=UTC))
        self.set_title(document.title)
        self.set_margin(_MARGIN)
        self.set_auto_page_break(True, _MARGIN)
        self.add_page()
        self._type(17, "B")
        self.multi_cell(0, 22 * scale, _latin(document.title), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        for number, part in enumerate(document.parts):
            self._part(part, document.parts[number + 1 :])

    @property
    def pages_count(self) -> int:
        """How many pages there are."""
        return len(self.pages)

    def footer(self) -> None:
        """The page number, and where the document comes from."""
        self.set_y(-32)
        self._type(7.5, color=_QUIET)
        self.cell(
            0, 10, f"Written by lapwing design from the stack file.   {self.page_no()}", align="R"
        )

    def _type(self, size: float, style: str = "", color: tuple[int, int, int] = _INK) -> None:
        self.set_font(_FONT, style, size * self._scale)
        self.set_text_color(*color)

    def _part(self, part: Part, following: tuple[Part, ...]) -> None:
        if isinstance(part, Heading):
            after = following[0] if following else None
            self._room(60 + (self._figure_height(after) if isinstance(after, Figure) else 0))
            self.ln(6 * self._scale)
            self._type(11.5, "B")
            self.cell(0, 17 * self._scale, _latin(part.text), new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        elif isinstance(part, Paragraph):
            self._type(9.2)
            text = _latin(part.text.replace("`", ""))
            height = 12.4 * self._scale
            self.multi_cell(0, height, text, align="L", new_x=XPos.LMARGIN, new_y=YPos.NEXT)
        elif isinstance(part, Table):
            self._table(part)
        else:
            self._figure(draw(part.picture))

    def _room(self, height: float) -> None:
        """Begin a page where this much does not fit on the present one."""
        if self.get_y() + height * self._scale > self.h - _MARGIN:
            self.add_page()

    def _table(self, table: Table) -> None:
        self._type(8)
        longest = [
            max(len(r[i]) for r in (table.header, *table.rows)) for i in range(len(table.header))
        ]
        widths = tuple(min(max(n, 6), 34) for n in longest)
        with self.table(
            col_widths=widths,
            line_height=11.5 * self._scale,
            padding=1.5,
            borders_layout="HORIZONTAL_LINES",
            text_align="LEFT",
        ) as grid:
            for cells in (table.header, *table.rows):
                grid.row([_latin(cell) for cell in cells])

    def _figure_height(self, figure: Figure) -> float:
        drawing = draw(figure.picture)
        return drawing.height * self._shrink(drawing) / self._scale

    def _shrink(self, drawing: Drawing) -> float:
        return self.epw / drawing.width * 0.88 * self._scale

    def _figure(self, drawing: Drawing) -> None:
        shrink = self._shrink(drawing)
        if self.get_y() + drawing.height * shrink > self.h - _MARGIN:
            self.add_page()
        left, top = (self.w - drawing.width * shrink) / 2, self.get_y() + 4
        with self.local_context():
            for shape in drawing.shapes:
                self._shape(shape, left, top, shrink)
        self.set_xy(self.l_margin, top + drawing.height * shrink)

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
        else:
            self._slice(shape, *at(shape.x, shape.y), shape.radius * shrink)

    def _line_of_text(self, shape: Text, x: float, y: float, shrink: float) -> None:
        self.set_font(_FONT, "B" if shape.bold else "", shape.size * shrink)
        self.set_text_color(shape.color)
        text = _latin(shape.text)
        shift = {"start": 0.0, "middle": 0.5, "end": 1.0}[shape.anchor]
        self.text(x - self.get_string_width(text) * shift, y, text)

    def _slice(self, shape: Wedge, x: float, y: float, radius: float) -> None:
        """A slice, as the polygon that an eye cannot tell from it: a corner at each degree."""
        self.set_fill_color(shape.fill)
        self.set_draw_color(PAPER)
        count = max(2, math.ceil(shape.end - shape.start))
        angles = (shape.start + (shape.end - shape.start) * i / count for i in range(count + 1))
        turns = [math.radians(angle - 90) for angle in angles]
        arc = [(x + radius * math.cos(t), y + radius * math.sin(t)) for t in turns]
        self.polygon([(x, y), *arc], style=RenderStyle.DF)


def _latin(text: str) -> str:
    """What the built-in fonts of PDF can show: the letters of Western Europe, else `?`."""
    return text.encode("cp1252", "replace").decode("cp1252")
