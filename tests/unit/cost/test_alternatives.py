"""Levers and the comparison of places."""

from __future__ import annotations

from decimal import Decimal

import pytest

from lapwing.cost.alternatives import compare, is_production, one_machine, with_settings
from lapwing.cost.book import book
from lapwing.cost.estimate import estimate
from lapwing.cost.ledger import Line
from lapwing.cost.levers import Lever, levers
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
    assert lever.low is not None
    assert lever.high is not None
    assert lever.low < lever.high  # The edge is scaled.
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
    *machines, amazon, azure, staging, production = [p.environment for p in places]
    assert (amazon, azure) == ("cluster (aws)", "cluster (azure)")
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


def clusters(case: str) -> dict[str, dict[str, Line]]:
    """The lines of the clusters in other clouds, by item."""
    return {
        e.environment: {line.item: line for line in e.lines}
        for e in compare(stacks(case), book())
        if e.environment.startswith("cluster")
    }


def test_cluster_in_another_cloud_bills_nodes_that_hold_all_pods() -> None:
    lines = clusters("company-inc")["cluster (aws)"]
    # api 2-3 of 1 vCPU and 2 GiB, web 2-3 of 50m and 64 MiB, edge 2 of 100m and 256 MiB,
    # 11 controllers of 50m with 1 GiB together: 2.85 to 3.9 vCPU and 5.625 to 7.6875 GiB, and a
    # second slot of api: 3 vCPU and 6 GiB. A t3.medium leaves 1.7 vCPU and 3.4 GiB for pods, so
    # 2.85 / 1.7 is 2 nodes and 6.9 / 1.7 (13.6875 / 3.4) is 5.
    assert lines["Nodes: t3.medium"].low == Decimal("60.74")  # 2 x 0.0416 x 730
    assert lines["Nodes: t3.medium"].high == Decimal("151.84")  # 5 x 0.0416 x 730
    assert lines["EKS cluster"].expected == Decimal("73.00")  # 0.10 x 730
    assert lines["Node disks"].low == Decimal("3.20")  # 2 x 20 x 0.08
    assert lines["NAT gateway"].expected == Decimal("32.85")  # 0.045 x 730
    assert lines["IP addresses"].expected == Decimal("10.95")  # 3 x 0.005 x 730
    assert lines["Internet egress"].expected == Decimal("2.90")  # 30 GiB are 32.21 GB, x 0.09
    assert lines["db: Atlas M10"].expected == Decimal("58.40")
    assert not lines["Secrets, DNS, registry and logs"].known


def test_cluster_in_another_cloud_has_what_is_unpriced_as_lines() -> None:
    lines = clusters("company-inc")["cluster (azure)"]
    assert {item for item, line in lines.items() if not line.known} == {
        "Load balancer",
        "Internet egress",
        "Data between zones",
        "Secrets, DNS, registry and logs",
    }
    assert not clusters("managed")["cluster (aws)"]["db: managed postgres"].known
    assert not clusters("refused-sizes")["cluster (aws)"]["Nodes"].known


def test_cluster_of_a_european_stack_is_compared_in_europe() -> None:
    lines = clusters("managed")
    regions = {"cluster (aws)": "0.027", "cluster (azure)": None}
    for name, balancer in regions.items():
        found = lines[name]["Load balancer"].unit_price
        assert found == (Decimal(balancer) if balancer else None)


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


def test_pay_per_pod_is_compared_with_nodes_that_hold_the_pods() -> None:
    # Of fleetdm: 1 + 0.25 vCPU of the databases, 2 to 4 of fleet, 2 to 4 edge pods and 0.1 of
    # controllers: 3.55 to 5.75 vCPU, of which an e2-standard-2 leaves 1.7, so 3 to 4 nodes. One
    # costs twice an e2-medium and has a disk of 20 GiB.
    node = 2 * Decimal("0.03350571") * 730 + 20 * Decimal("0.10")
    lever = found("fleetdm")["pay per pod (Autopilot)"]
    lines = [
        x
        for x in estimate(read(stacks("fleetdm")), book()).lines
        if x.item.endswith((": vCPU", ": memory", "storage of pods"))
    ]
    low = 3 * node - sum(x.low or 0 for x in lines)
    high = 4 * node - sum(x.high or 0 for x in lines)
    assert lever.used
    assert (lever.low, lever.high) == tuple(
        sorted(x.quantize(Decimal("0.01")) for x in (low, high))
    )
    assert "e2-standard-2" in lever.note


def test_shared_nat_is_compared_with_a_public_address_for_each_node() -> None:
    # Two nodes, 0.0014 an hour each, one address of 0.005, and 5 GiB of 0.045: 2.04 + 3.65 + 0.23;
    # two addresses cost 7.30.
    lever = found("company-inc")["shared NAT gateway"]
    now = {x.item: x.low for x in estimate(read(stacks("company-inc")), book()).lines}
    items = ("NAT gateway", "NAT address", "NAT: processed data")
    assert sum(now[item] or 0 for item in items) == Decimal("2.04") + Decimal("3.65") + Decimal(
        "0.23"
    )
    assert lever.used
    assert (lever.low, lever.high) == (Decimal("7.30") - Decimal("5.92"),) * 2


def test_savings_of_pods_and_nat_are_unknown_without_prices() -> None:
    levers = found("region-without-prices")
    assert levers["pay per pod (Autopilot)"].low is None
