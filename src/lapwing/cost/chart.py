"""Draw an estimate as a bar chart in SVG, one bar per part.

Each bar is dark up to its low amount and light up to its high amount. The amounts are printed
beside it, so that color is not the only information. A credit reduces the part that it covers.
"""

from __future__ import annotations

from decimal import Decimal
from xml.sax.saxutils import escape

from lapwing.cost.ledger import Estimate
from lapwing.cost.report import sentence, span

WIDTH, LEFT, BARS, ROW, TOP = 900, 170, 500, 34, 92
"""Pixels: total width, left of the bars, longest bar, row height, above the first row."""
LINE = 104
"""Characters per line of the total."""
MAX_BARS = 12
"""Maximum number of bars; the smallest parts are combined."""


def bar_chart(estimate: Estimate) -> str:
    """Draw the bar chart of an estimate."""
    parts = _parts(estimate)
    most = max((high for _, _, high in parts), default=Decimal(0)) or Decimal(1)
    bars = "".join(_bar(n, *part, most) for n, part in enumerate(parts))
    height = TOP + ROW * max(len(parts), 1) + 40
    text = sentence(estimate)
    lines = _wrap(text[:1].upper() + text[1:])
    title = "".join(
        f'<text x="24" y="{56 + 18 * n}" font-size="13" fill="#475569">{escape(line)}</text>\n'
        for n, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
        f'viewBox="0 0 {WIDTH} {height}" font-family="system-ui, sans-serif" role="img">\n'
        f"<title>{escape(f'Cost of {estimate.environment}: {text}')}</title>\n"
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="24" y="34" font-size="19" font-weight="600" fill="#0f172a">'
        f"Cost of {escape(estimate.environment)}</text>\n{title}{bars}"
        f'<text x="{LEFT}" y="{height - 16}" font-size="12" fill="#64748b">'
        "dark: low; light: high</text>\n</svg>\n"
    )


def _parts(estimate: Estimate) -> list[tuple[str, Decimal, Decimal]]:
    """Return name, low and high of each part with a cost, the largest first."""
    groups = [(n, low, high) for n, (low, _, high) in estimate.by("part").items() if high > 0]
    groups.sort(key=lambda part: (-part[2], part[0]))
    if len(groups) <= MAX_BARS:
        return groups
    rest = groups[MAX_BARS - 1 :]
    low, high = sum((p[1] for p in rest), Decimal(0)), sum((p[2] for p in rest), Decimal(0))
    return [*groups[: MAX_BARS - 1], (f"{len(rest)} more", low, high)]


def _bar(number: int, name: str, low: Decimal, high: Decimal, most: Decimal) -> str:
    y = TOP + ROW * number
    dark, light = (max(float(amount / most) * BARS, 1.0) for amount in (low, high))
    shown = name if len(name) <= 20 else f"{name[:19]}…"
    return (
        f'<text x="{LEFT - 12}" y="{y + 16}" font-size="14" text-anchor="end" fill="#0f172a">'
        f"{escape(shown)}</text>\n"
        f'<rect x="{LEFT}" y="{y}" width="{light:.1f}" height="22" rx="3" fill="#93c5fd"/>\n'
        f'<rect x="{LEFT}" y="{y}" width="{dark:.1f}" height="22" rx="3" fill="#1d4ed8"/>\n'
        f'<text x="{LEFT + light + 10:.1f}" y="{y + 16}" font-size="14" fill="#0f172a">'
        f"{span(low, high)}</text>\n"
    )


def _wrap(text: str) -> list[str]:
    """Wrap text into lines."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > LINE:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
