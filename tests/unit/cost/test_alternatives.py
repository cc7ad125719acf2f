"""Levers and the comparison of places."""

from __future__ import annotations

from decimal import Decimal

import pytest

from lapwing.cost.alternatives import Lever, compare, is_production, levers, one_machine
from lapwing.cost.book import book
from lapwing.cost.estimate import estimate
from tests.unit.cost.stacks import cases, stacks


def found(case: str) -> dict[str, Lever]:
    """The levers of a case by name."""
    return {lever.name: lever for lever in levers(stacks(case), book())}


def test_spot_saving_is_price_difference() -> None:
    lever = found("staging-and-production")["spot pods for staging"]
    pods = [
        x
        for x in estimate(stacks("staging-and-production"), book()).lines
        if x.environment == "staging" and x.part in ("api", "mailer", "web")
    ]
    dear = {"vCPU-hour": Decimal("0.0445"), "GiB-hour": Decimal("0.0049225")}
    assert all(x.low is not None and x.quantity is not None for x in pods)
    expected = sum((x.quantity or 0) * dear[x.unit] - (x.low or 0) for x in pods)
    assert lever.used
    assert lever.low == lever.high
    assert lever.low is not None
    assert abs(lever.low - expected) <= Decimal("0.03")


def test_spot_saving_is_unknown_without_price() -> None:
    lever = found("one-project")["spot pods for dev, qa, staging, demo, training, canary"]
    assert (lever.low, lever.high, lever.used) == (None, None, False)
    assert lever.note.endswith("no price for asia-east1; there is one for us-east1")


def test_one_cluster_saves_fee_rules_and_nat() -> None:
    lever = found("staging-and-production")["one cluster instead of 2"]
    fixed = Decimal("73.00") + Decimal("18.25") + Decimal("3.65")
    assert lever.low is not None
    assert fixed <= lever.low <= fixed + Decimal("2.04")


def test_commitment_saving_is_share_of_low_amount() -> None:
    lever = found("worked-check")["commitment for 1 year"]
    assert lever.low == Decimal("22.22")
    assert found("region-without-prices")["commitment for 3 years"].low is None


def test_cdn_saving_is_unknown_without_price() -> None:
    assert found("staging-and-production")["CDN for static files"].low is None
    used = found("company-inc")["CDN for static files"]
    assert used.used
    assert used.low is not None
    assert used.high is not None
    # 20 GiB: 0.12 + 0.008 without; 0.08, at most 0.04 of fill, and 0.38 of lookups with.
    assert (used.low, used.high) == (Decimal("-0.22"), Decimal("0.58"))


def test_machine_has_no_savings_options() -> None:
    assert found("shortest") == {}


@pytest.mark.parametrize("case", cases())
def test_compare_lists_three_infrastructures(case: str) -> None:
    loaded = stacks(case)
    places = compare(loaded, book())
    if not any(s.settings.cloud for s in loaded):
        assert places == []
        return
    assert [p.environment for p in places] == ["one machine", "staging on spot", "full production"]
    for place in places:
        assert place.low <= place.high
        assert all(line.known or line.note for line in place.lines)


def test_machine_type_fits_both_slots() -> None:
    machine = one_machine(stacks("company-inc")[0], book())
    (cpu, memory) = (x for x in machine.lines if x.item.startswith("e2-"))
    assert cpu.item == "e2-standard-4: cpu"
    assert (cpu.low, memory.low) == (Decimal("63.69"), Decimal("34.15"))


def test_staging_on_spot_uses_spot_environment() -> None:
    _, staging, _ = compare(stacks("staging-and-production"), book())
    only = [s for s in stacks("staging-and-production") if s.environment == "staging"]
    assert staging.lines == estimate(only, book()).lines


@pytest.mark.parametrize(
    ("name", "expected"),
    [("production", True), ("prod-eu", True), ("live", True), ("staging", False), ("local", False)],
)
def test_is_production_by_name(name: str, expected: bool) -> None:
    assert is_production(name) is expected
