"""Estimates of tests/golden/cost: each case has `lapwing.yaml`, or is the example of that name.

`expected.json` is the answer for programs, `expected.md` the page. LAPWING_GOLDEN_WRITE=1 writes
them again; read the difference.
"""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from lapwing.cost import report
from lapwing.cost.alternatives import levers
from lapwing.cost.book import book
from lapwing.cost.estimate import estimate
from tests.unit.cost.stacks import CASES, cases, compare, stacks


@pytest.mark.parametrize("case", cases())
def test_estimate_matches_golden_files(case: str) -> None:
    loaded = stacks(case)
    now, found = estimate(loaded, book()), levers(loaded, book())
    data = json.dumps(report.as_data(now, found), indent=2, ensure_ascii=False)
    compare(CASES / case / "expected.json", data + "\n")
    compare(CASES / case / "expected.md", report.markdown(now, found))


def test_estimate_matches_manual_calculation() -> None:
    now = estimate(stacks("worked-check"), book())
    amounts = {line.item: line.low for line in now.lines if line.known}
    assert amounts == {
        "api: vCPU": Decimal("64.97"),
        "api: memory": Decimal("14.37"),
        "Cluster fee": Decimal("73.00"),
        "Credit for one cluster": Decimal("-73.00"),
        "Load balancer: forwarding rules": Decimal("18.25"),
        "NAT gateway": Decimal("2.04"),
        "NAT address": Decimal("3.65"),
        "Secret versions": Decimal("0.24"),
        "Secret access operations": Decimal("0.00"),
        "Image storage": Decimal("0.45"),
    }
    assert (now.low, now.high) == (Decimal("103.97"), Decimal("103.97"))


def test_expected_amount_is_halfway_or_absent() -> None:
    assert estimate(stacks("company-inc"), book()).expected == Decimal("218.43")
    assert estimate(stacks("own-machine"), book()).expected is None


def test_example_cost_is_in_expected_range() -> None:
    now = estimate(stacks("company-inc"), book())
    assert Decimal(175) <= now.low <= now.high <= Decimal(245)
    assert not now.unstated
    groups = now.by("part")
    pods = [groups[part] for part in ("api", "web", "overhead", "rollouts", "cluster")]
    assert Decimal(80) <= sum(low for low, _ in pods)
    assert sum(high for _, high in pods) <= Decimal(150)
    assert groups["db"] == (Decimal("58.40"), Decimal("58.40"))


def test_every_price_has_a_source_and_a_date() -> None:
    for price in book().prices:
        assert price.source, price
        assert len(price.date) in (7, 10), price
        assert price.price >= 0, price
        assert price.regions, price
    items = [(p.item, r) for p in book().prices for r in p.regions]
    assert len(items) == len(set(items)), "an item has two prices in one region"


def test_unknown_price_is_one_note_with_its_environments() -> None:
    several = report.unknown_notes(estimate(stacks("fleetdm"), book()))
    assert [n.partition(":")[0] for n in several] == [
        "Ephemeral storage of pods (production)",
        "The cluster (kind, hosts-1000, hosts-25000, hosts-150000)",
    ]
    one = report.unknown_notes(estimate(stacks("own-machine"), book()))
    assert [n.partition(":")[0] for n in one] == ["The machine"]


def test_environment_outside_of_a_cloud_has_no_project() -> None:
    data = report.as_data(estimate(stacks("fleetdm"), book()))
    assert [p["name"] for p in data["projects"]] == [
        "fleetdm-stack-production",
        "fleetdm-stack-shared",
    ]
