"""The bar chart: well-formed, inside its frame, true to the estimate."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from xml.etree import ElementTree

import pytest

from lapwing.cost.book import book
from lapwing.cost.chart import BARS, LEFT, MAX_BARS, WIDTH, bar_chart
from lapwing.cost.estimate import estimate
from lapwing.inventory.read import read
from lapwing.stack.load import environments
from tests.unit.cost.stacks import ROOT, cases, compare, stacks

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("case", cases())
def test_each_part_has_a_bar_inside_the_frame(case: str) -> None:
    found = estimate(read(stacks(case)), book())
    root = ElementTree.fromstring(bar_chart(found))
    bars = root.findall(f"{SVG}rect")[1:]
    parts = [high for _, _, high in found.by("part").values() if high > 0]
    assert len(bars) == 2 * min(len(parts), MAX_BARS)
    for bar in bars:
        assert float(bar.get("x", "")) == LEFT
        assert 0 < float(bar.get("width", "")) <= BARS
        assert float(bar.get("y", "")) + 22 < float(root.get("height", ""))
    # The light bar is drawn first; a dark one is never longer than its light one.
    for light, dark in zip(bars[::2], bars[1::2], strict=True):
        assert float(dark.get("width", "")) <= float(light.get("width", ""))
    for text in root.findall(f"{SVG}text"):
        assert len(text.text or "") * 6 < WIDTH


def test_readme_chart_matches_example() -> None:
    """LAPWING_GOLDEN_WRITE=1 draws it again."""
    found = estimate(read(environments(ROOT / "examples/company-inc/lapwing.yaml")), book())
    compare(ROOT / "docs/pictures/cost.svg", bar_chart(found))


def test_names_are_escaped() -> None:
    found = estimate(read(stacks("worked-check")), book())
    named = replace(found, environment="<b>&", lines=(replace(found.lines[0], part="<script>"),))
    root = ElementTree.fromstring(bar_chart(named))
    assert {t.text for t in root.iter(f"{SVG}text")} >= {"Cost of <b>&", "<script>"}


def test_small_parts_are_combined() -> None:
    line = estimate(read(stacks("worked-check")), book()).lines[0]
    many = tuple(
        replace(line, part=f"part-{n}", low=Decimal(n + 1), high=Decimal(n + 1)) for n in range(30)
    )
    texts = [
        t.text
        for t in ElementTree.fromstring(
            bar_chart(replace(estimate(read(stacks("worked-check")), book()), lines=many))
        ).iter(f"{SVG}text")
    ]
    assert "19 more" in texts
    assert "190.00" in texts
