"""Estimates of tests/golden/cost: each case has `lapwing.yaml`, or is the example of that name.

`expected.json` is the answer for programs, `expected.md` the page. LAPWING_GOLDEN_WRITE=1 writes
them again; read the difference.
"""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from lapwing.cost import report
from lapwing.cost.book import book
from lapwing.cost.estimate import estimate
from lapwing.cost.levers import levers
from lapwing.inventory.read import read
from tests.unit.cost.stacks import CASES, cases, compare, stacks


@pytest.mark.parametrize("case", cases())
def test_estimate_matches_golden_files(case: str) -> None:
    loaded = stacks(case)
    now, found = estimate(read(loaded), book()), levers(loaded, book())
    data = json.dumps(report.as_data(now, found), indent=2, ensure_ascii=False)
    compare(CASES / case / "expected.json", data + "\n")
    compare(CASES / case / "expected.md", report.markdown(now, found))


def test_expected_amount_is_absent_without_any_price() -> None:
    assert estimate(read(stacks("own-machine")), book()).expected is None


def test_example_cost_is_in_expected_range() -> None:
    """The parts of an estimate made by hand: 80-150, about 60, about 30, about 5 without scans."""
    now = estimate(read(stacks("company-inc")), book())
    assert not now.unstated
    assert not now.unknown
    expected = {part: middle for part, (_, middle, _) in now.by("part").items()}
    pods = ("api", "web", "edge", "overhead", "rollouts", "cluster", "pods")
    assert 80 <= sum(expected[part] for part in pods) <= 150
    tier = next(x for x in now.lines if x.item == "db: Atlas M10")
    assert tier.expected == Decimal("58.40")
    assert 20 <= expected["network"] <= 35
    scans = next(x.expected for x in now.lines if x.item == "Image scans")
    assert scans is not None
    assert expected["registry"] + expected["secrets"] - scans <= 5


def test_every_price_has_a_source_and_a_date() -> None:
    for price in book().prices:
        assert price.source.text, price
        assert len(price.source.date) in (4, 7, 10), price
        assert all(0 <= tier.low <= tier.high for tier in price.tiers), price
        assert price.regions, price
    items = [(p.item, r) for p in book().prices for r in p.regions]
    assert len(items) == len(set(items)), "an item has two prices in one region"


def test_unknown_price_is_one_note_with_its_environments() -> None:
    several = report.unknown_notes(estimate(read(stacks("fleetdm")), book()))
    assert several == []
    one = report.unknown_notes(estimate(read(stacks("own-machine")), book()))
    assert [n.partition(":")[0] for n in one] == ["The machine"]


def test_environment_outside_of_a_cloud_has_no_project() -> None:
    data = report.as_data(estimate(read(stacks("fleetdm")), book()))
    assert [p["name"] for p in data["projects"]] == [
        "fleetdm-stack-production",
        "fleetdm-stack-shared",
    ]
