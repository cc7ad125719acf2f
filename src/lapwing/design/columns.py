"""Divide the width of a page among the columns of a table, by what their cells need."""

from __future__ import annotations

from collections.abc import Callable, Iterable

PADDING = 4.0
"""The points on the left and right of a cell, with room for rounding."""
_MAX_COLUMN = 0.3
"""The share of the page at which the text of a column wraps."""


def column_widths(
    columns: Iterable[tuple[str, ...]], available: float, measure: Callable[[str], float]
) -> list[float]:
    """Divide the available width: the longest word of each column fits, and long texts wrap."""
    least, wanted = [], []
    for cells in columns:
        least.append(max(measure(word) for cell in cells for word in cell.split()) + 2 * PADDING)
        whole = min(max(map(measure, cells)) + 2 * PADDING, _MAX_COLUMN * available)
        wanted.append(max(whole, least[-1]))
    spare, missing_width = available - sum(least), sum(wanted) - sum(least)
    share = min(1.0, max(spare, 0.0) / missing_width) if missing_width else 0.0
    widths = [word + share * (w - word) for word, w in zip(least, wanted, strict=True)]
    return [available * width / sum(widths) for width in widths]
