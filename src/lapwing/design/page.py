"""Format the architecture document as one HTML page, with its pictures as inline SVG.

The page has no JavaScript and loads nothing, so it can be sent to anybody. It uses the fonts of the
browser, so characters of every writing system are shown.
"""

from __future__ import annotations

import re
from html import escape

from lapwing.design.diagrams.layout import draw
from lapwing.design.diagrams.svg import svg
from lapwing.design.parts import (
    GENERATED,
    Bullets,
    Document,
    Figure,
    Heading,
    Paragraph,
    Part,
    Table,
)

_STYLE = """\
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; color-scheme: light dark; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.2rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; min-width: 32rem; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem;
  border-bottom: 1px solid #d8dee4; }
figure { margin: 1.2rem 0; overflow-x: auto; text-align: center; }
svg { max-width: 100%; min-width: 34rem; height: auto; }
.number { text-align: right; }
code { overflow-wrap: anywhere; }
footer { color: #52606d; margin-top: 2rem; font-size: .85rem; }
@media (prefers-color-scheme: dark) { body { background: #14181d; color: #e4e7eb; }
  th, td { border-color: #3e4c59; } footer { color: #9aa5b1; }
  figure { background: #fff; border-radius: 6px; padding: .6rem; } }
@media print { body { margin: 0; max-width: none; } figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; } }
"""


def html(document: Document) -> str:
    """Format a document."""
    parts = "\n".join(_part(part) for part in document.parts)
    title = escape(document.title)
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{_STYLE}</style>
</head>
<body>
<h1>{title}</h1>
{parts}
<footer>{_text(GENERATED)}</footer>
</body>
</html>
"""


def _part(part: Part) -> str:
    if isinstance(part, Heading):
        return f"<h2>{escape(part.text)}</h2>"
    if isinstance(part, Paragraph):
        return f"<p>{_text(part.text)}</p>"
    if isinstance(part, Bullets):
        return "<ul>" + "".join(f"<li>{_text(item)}</li>" for item in part.items) + "</ul>"
    if isinstance(part, Figure):
        return f"<figure>{svg(draw(part.picture))}</figure>"
    return _table(part)


def _table(table: Table) -> str:
    head = _row(table, table.header, "th")
    rows = "".join(f"{_row(table, cells, 'td')}\n" for cells in table.rows)
    body = f"<thead>{head}</thead>\n<tbody>\n{rows}</tbody>"
    return f'<div class="wide"><table>\n{body}\n</table></div>'


def _row(table: Table, cells: tuple[str, ...], tag: str) -> str:
    """Format a row; numbers are aligned on the right."""
    start = {True: f'<{tag} class="number">', False: f"<{tag}>"}
    pairs = zip(cells, table.numeric, strict=True)
    return "<tr>" + "".join(f"{start[n]}{_text(cell)}</{tag}>" for cell, n in pairs) + "</tr>"


def _text(text: str) -> str:
    """Escape text, with `code` between backquotes."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
