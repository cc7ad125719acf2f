"""Levers and the comparison of places."""

from __future__ import annotations

from decimal import Decimal

import pytest

from lapwing.cost.alternatives import (
    Lever,
    compare,
    is_production,
    levers,
    one_machine,
    with_settings,
)
from lapwing.cost.book import book
from lapwing.cost.estimate import estimate
from lapwing.inventory.read import read
from tests.unit.cost.stacks import cases, stacks


def found(case: str) -> dict[str, Lever]:
    """The levers of a case by name."""
    return {lever.name: lever for lever in levers(stacks(case), book())}


def test_spot_saving_is_price_difference() -> None:
    lever = found("staging-and-production")["spot pods for staging"]
    pods = [
        x
        for x in estimate(read(stacks("staging-and-production")), book()).lines
        if x.environment == "staging" and x.part in ("api", "mailer", "web", "edge")
    ]
    dear = {"vCPU-hour": Decimal("0.0445"), "GiB-hour": Decimal("0.0049225")}
    assert all(x.low is not None and x.quantity is not None for x in pods)
    expected = sum((x.quantity or 0) * dear[x.unit] - (x.low or 0) for x in pods)
    assert lever.used
    assert lever.low == lever.high
    assert lever.low is not None
    assert abs(lever.low - expected) <= Decimal("0.03")


def test_one_cluster_saves_fee_rules_and_nat() -> None:
    lever = found("staging-and-production")["one cluster instead of 2"]
    # Staging has no domain, so no load balancer; it has a NAT for two nodes, and controllers.
    fixed = Decimal("73.00") + Decimal("3.65") + Decimal("2.04")
    controllers = 11 * 730 * (Decimal("0.05") * Decimal("0.0445"))
    assert lever.low is not None
    assert lever.low >= fixed + controllers


def test_commitment_saving_is_a_range_of_the_low_amount() -> None:
    lever = found("worked-check")["commitment for 1 year"]
    pods = [
        x.low or Decimal(0)
        for x in estimate(read(stacks("worked-check")), book()).lines
        if x.item.endswith((": vCPU", ": memory"))
    ]
    assert lever.low == (sum(pods) * Decimal("0.20")).quantize(Decimal("0.01"))
    assert lever.high == (sum(pods) * Decimal("0.28")).quantize(Decimal("0.01"))


def test_cdn_saving_is_the_difference_of_two_estimates() -> None:
    used = found("company-inc")["CDN for static files"]
    assert used.used
    without = [with_settings(s, cdn=False) for s in stacks("company-inc")]
    [now, other] = [
        sum(x.low for x in estimate(read(each), book()).lines if x.part == "traffic" and x.low)
        for each in (stacks("company-inc"), without)
    ]
    assert used.high == other - now


def test_machine_has_no_savings_options() -> None:
    assert found("shortest") == {}


@pytest.mark.parametrize("case", cases())
def test_compare_lists_machines_staging_and_production(case: str) -> None:
    places = compare(stacks(case), book())
    *machines, staging, production = [p.environment for p in places]
    assert (staging, production) == ("staging on spot", "full production")
    assert all(m.startswith("one machine (") for m in machines)
    for place in places:
        assert place.low <= place.high
        assert all(line.known or line.note for line in place.lines)


def test_machine_type_fits_both_slots() -> None:
    machines = {m.environment: m for m in one_machine(stacks("company-inc")[0], book())}
    assert set(machines) == {
        f"one machine ({p})" for p in ("hetzner", "digitalocean", "gcp", "aws", "azure")
    }
    google = machines["one machine (gcp)"]
    assert google.lines[0].item == "gcp e2-standard-4"
    assert google.lines[0].low == (Decimal("0.13402284") * 730).quantize(Decimal("0.01"))


def test_staging_on_spot_uses_spot_environment() -> None:
    *_, staging, _ = compare(stacks("staging-and-production"), book())
    only = [s for s in stacks("staging-and-production") if s.environment == "staging"]
    assert staging.lines == estimate(read(only), book()).lines


@pytest.mark.parametrize(
    ("name", "expected"),
    [("production", True), ("prod-eu", True), ("live", True), ("staging", False), ("local", False)],
)
def test_is_production_by_name(name: str, expected: bool) -> None:
    assert is_production(name) is expected
