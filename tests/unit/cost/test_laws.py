"""What holds for every estimate, whatever the stack."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.cost import report
from lapwing.cost.alternatives import with_settings
from lapwing.cost.book import HOURS, Book, Price, Source, Tier, book
from lapwing.cost.estimate import estimate
from lapwing.cost.ledger import Estimate, changed_lines
from lapwing.inventory import autopilot
from lapwing.inventory.read import read
from lapwing.stack.cloud import gcp_regions
from lapwing.stack.load import LoadedStack, environments
from lapwing.stack.model import Stack
from tests.unit.render.stacks import GOLDEN

MIB = 2**20


def loaded(**service: Any) -> LoadedStack:
    """A stack of one service in production, without a file."""
    environment = {
        "target": "kubernetes",
        "domain": "shop.example.com",
        "cloud": {"provider": "gcp", "region": "us-central1"},
        "overhead": {"cpu": "500m", "memory": "1Gi"},
        "usage": {"sent": "10Gi", "received": "1Gi", "deployments": 20, "images": "5G"},
    }
    stack = Stack.model_validate(
        {
            "stack": "shop",
            "services": {"api": {"build": ".", "command": "run", "route": "/", **service}},
            "environments": {"production": environment},
        }
    )
    return LoadedStack(stack, "production", stack.environments["production"], Path("lapwing.yaml"))


def cost(cpu: int, memory: int, least: int, most: int, **more: Any) -> Estimate:
    """The estimate for replicas of `cpu` thousandths of a core and `memory` MiB."""
    service = {
        **more,
        "replicas": {"min": least, "max": most},
        "resources": {"cpu": f"{cpu}m", "memory": f"{memory}Mi"},
    }
    return estimate(read([loaded(**service)]), book())


def without_gateway(found: Estimate) -> tuple[Decimal, Decimal]:
    """The total but for the NAT gateway: its own list price falls by 58 cents a month at the 33rd
    VM, so it is the one line that more load may make cheaper."""
    lines = [x for x in found.lines if x.item != "NAT gateway" and x.known]
    return (
        sum((x.low for x in lines if x.low is not None), Decimal(0)),
        sum((x.high for x in lines if x.high is not None), Decimal(0)),
    )


cpus, memories = st.integers(1, 40_000), st.integers(1, 150_000)
replicas = st.integers(1, 33)


@settings(max_examples=60)
@given(cpus, memories, replicas, replicas)
def test_total_is_sum_of_lines(cpu: int, memory: int, least: int, more: int) -> None:
    found = cost(cpu, memory, least, least + more)
    known = [line for line in found.lines if line.known]
    assert found.low == sum(line.low for line in known if line.low is not None)
    assert found.high == sum(line.high for line in known if line.high is not None)
    assert found.low <= found.high
    assert all((x.low or 0) <= (x.expected or 0) <= (x.high or 0) for x in known if x.low != x.high)
    assert all(line.low == line.low.quantize(Decimal("0.01")) for line in known if line.low)
    for key in ("environment", "project", "part"):
        assert sum(low for low, _, _ in found.by(key).values()) == found.low
        assert sum(middle for _, middle, _ in found.by(key).values()) == found.expected
        assert sum(high for _, _, high in found.by(key).values()) == found.high


@settings(max_examples=25)
@given(cpus, memories, replicas, replicas, st.integers(0, 4000), st.integers(0, 8000), replicas)
def test_larger_requests_never_cost_less(
    cpu: int, memory: int, least: int, more: int, cpu_more: int, memory_more: int, extra: int
) -> None:
    """Of a worker: the edge of a larger web service may have fewer but larger pods."""
    worker = functools.partial(cost, kind="worker", route=None)
    small = without_gateway(worker(cpu, memory, least, least + more))
    for large in (
        worker(cpu + cpu_more, memory, least, least + more),
        worker(cpu, memory + memory_more, least, least + more),
        worker(cpu, memory, least, least + more + extra),
        worker(cpu, memory, min(least + extra, least + more), least + more),
    ):
        assert without_gateway(large)[0] >= small[0]
        assert without_gateway(large)[1] >= small[1]


@settings(max_examples=200)
@given(cpus, memories)
def test_fitted_pod_is_within_autopilot_limits(cpu: int, memory: int) -> None:
    pod = autopilot.fit(cpu / 1000, memory * MIB)
    assert pod.cpu >= Decimal(cpu) / 1000
    assert pod.memory >= Decimal(memory) / 1024
    assert pod.cpu >= Decimal("0.05")
    assert pod.memory >= Decimal(52) / 1024
    assert 1 <= pod.memory / pod.cpu <= Decimal("6.5")
    again = autopilot.fit(float(pod.cpu), int(pod.memory * 1024) * MIB)
    assert (again.cpu, again.memory) == (pod.cpu, pod.memory)
    assert bool(pod.note) == (pod.refused or (pod.cpu, pod.memory) != (
        Decimal(cpu) / 1000, Decimal(memory) / 1024
    ))  # fmt: skip


@settings(max_examples=200)
@given(cpus, memories)
def test_single_request_is_kept(cpu: int, memory: int) -> None:
    """Autopilot chooses a request that is missing so that the one that is there can stay."""
    alone = autopilot.fit(cpu / 1000, None)
    assert alone.cpu == max(Decimal(cpu) / 1000, Decimal("0.05"))
    assert 1 <= alone.memory / alone.cpu <= Decimal("6.5")
    assert "no memory request" in alone.note
    alone = autopilot.fit(None, memory * MIB)
    assert alone.memory == max(Decimal(memory) / 1024, Decimal(52) / 1024)
    assert alone.cpu >= Decimal("0.05")
    assert "no CPU request" in alone.note


def test_defaults_apply_without_requests() -> None:
    pod = autopilot.fit(None, None)
    assert (pod.cpu, pod.memory) == (Decimal("0.5"), Decimal(2))


@given(st.integers(33, 100))
@settings(max_examples=10)
def test_nat_gateway_price_is_constant_above_32_nodes(nodes: int) -> None:
    found = cost(2000, 4096, nodes, nodes)
    gateway = next(line for line in found.lines if line.item == "NAT gateway")
    assert gateway.low == gateway.high == Decimal("32.12")


def test_forwarding_rules_are_billed_from_the_sixth() -> None:
    def lines(rules: int) -> dict[str, Decimal | None]:
        found = read([loaded()])
        balancer = replace(found.projects[0].facts.load_balancers[0], rules=rules)
        facts = replace(found.projects[0].facts, load_balancers=(balancer,))
        project = replace(found.projects[0], facts=facts)
        made = estimate(replace(found, projects=(project,)), book())
        return {x.item: x.low for x in made.lines}

    for count, more in ((1, None), (5, None), (6, Decimal("7.30")), (7, Decimal("14.60"))):
        assert lines(count)["Load balancer: forwarding rules"] == Decimal("18.25")
        assert lines(count).get("Load balancer: additional rules") == more


def in_environments(**projects: str) -> list[LoadedStack]:
    """The stack in several environments, by name with their project."""
    one = loaded()
    cloud = one.settings.cloud
    assert cloud is not None
    environments = {
        name: one.settings.model_copy(
            update={"cloud": cloud.model_copy(update={"project": project})}
        )
        for name, project in projects.items()
    }
    stack = one.stack.model_copy(update={"environments": environments})
    return [LoadedStack(stack, name, e, one.path) for name, e in environments.items()]


def test_credit_covers_one_cluster() -> None:
    stacks = in_environments(qa="shop-qa", production="shop-production")
    lines = [(x.item, x.low) for x in estimate(read(stacks), book()).lines if x.part == "cluster"]
    assert lines == [
        ("Cluster fee", Decimal("73.00")),
        ("Credit for one cluster", Decimal("-73.00")),
        ("Cluster fee", Decimal("73.00")),
    ]


def test_environments_of_one_project_share_cluster_network_and_controllers() -> None:
    stacks = in_environments(qa="shop-all", production="shop-all")
    items = [x.item for x in estimate(read(stacks), book()).lines]
    for once in ("Cluster fee", "NAT gateway", "overhead: vCPU", "Load balancer: forwarding rules"):
        assert items.count(once) == 1


def test_second_slot_never_runs_longer_than_a_month() -> None:
    def quantity(deployments: int) -> Decimal | None:
        one = loaded(rollout={"keep_old": "1d"})
        usage = one.settings.usage.model_copy(update={"deployments": deployments})
        lines = estimate(read([with_settings(one, usage=usage)]), book()).lines
        line = next(x for x in lines if x.item == "Second slot during rollouts: vCPU")
        return line.quantity_high

    api = next(x for x in estimate(read([loaded()]), book()).lines if x.item == "api: vCPU")
    assert quantity(1000) == quantity(100) == api.quantity_high


def test_second_slot_exists_only_with_rollouts() -> None:
    without = with_settings(loaded(), rollouts=False)
    items = {x.part for x in estimate(read([without]), book()).lines}
    assert "rollouts" not in items
    assert "rollouts" in {x.part for x in estimate(read([loaded()]), book()).lines}


def test_tiers_apply_to_the_part_above_each_start() -> None:
    egress = book().find("internet.sent", "europe-west1")
    assert egress is not None
    expected = 1024 * Decimal("0.12") + (10240 - 1024) * Decimal("0.11") + 10000 * Decimal("0.08")
    assert egress.cost(Decimal(20240)) == (expected, expected)


def test_free_tier_is_not_billed() -> None:
    def secrets(count: int) -> Decimal | None:
        lines = estimate(read([loaded(secrets=[f"S{n}" for n in range(count)])]), book()).lines
        return next((x.low for x in lines if x.item == "Secret versions"), None)

    assert [secrets(n) for n in (0, 1, 6, 7, 20)] == [
        None, Decimal("0.00"), Decimal("0.00"), Decimal("0.06"), Decimal("0.84"),
    ]  # fmt: skip


def test_region_without_price_is_bounded_by_other_regions() -> None:
    def price(amount: int, region: str) -> Price:
        tiers = (Tier(Decimal(0), Decimal(amount), Decimal(amount)),)
        return Price(
            "autopilot.cpu", "vCPU-hour", tiers, Source("x", "official", "2026"), (region,)
        )

    prices = (price(1, "asia-east1"), price(3, "asia-east2"))
    found = estimate(read([loaded()]), Book(prices))
    line = next(x for x in found.lines if x.item == "api: vCPU")
    assert (line.unit_price, line.unit_price_high) == (1, 3)
    assert line.low is not None
    assert line.high == 3 * line.low
    assert "no price for us-central1" in line.note


def test_spot_pods_have_a_separate_lower_price_in_every_region() -> None:
    for region in gcp_regions():
        for what in ("cpu", "memory"):
            pods, spot = (book().find(f"autopilot.{kind}{what}", region) for kind in ("", "spot."))
            assert pods is not None
            assert spot is not None
            assert region in spot.regions
            assert spot.high < pods.low


def test_item_without_any_price_is_unpriced() -> None:
    found = estimate(read([loaded()]), Book(()))
    assert found.unknown == found.lines
    assert found.low == found.high == 0
    assert found.expected is None
    assert all("no price is recorded" in line.note for line in found.lines)


def test_pods_are_billed_every_hour() -> None:
    line = next(x for x in cost(500, 1024, 2, 4).lines if x.item == "api: vCPU")
    assert (line.quantity, line.quantity_high) == (HOURS, 2 * HOURS)


def test_equal_estimates_have_no_changed_lines() -> None:
    assert changed_lines(cost(500, 1024, 2, 4), cost(500, 1024, 2, 4)) == []


@pytest.mark.parametrize("most", [5, 9])
def test_changed_lines_sum_to_difference_of_totals(most: int) -> None:
    before, after = cost(500, 1024, 2, 4), cost(750, 1024, 2, most)
    changes = changed_lines(before, after)
    assert {c.item for c in changes} >= {"api: vCPU", "api: memory"}
    assert sum(c.low for c in changes) == after.low - before.low
    assert sum(c.high for c in changes) == after.high - before.high


@pytest.mark.parametrize(
    ("today", "amount"), [(date(2026, 1, 31), None), (date(2026, 2, 1), Decimal("102.20"))]
)
def test_extended_support_is_billed_from_its_first_day(today: date, amount: Decimal | None) -> None:
    """PostgreSQL 13 with a standby: 1 vCPU, 0.14 US dollars, 730 hours."""
    path = GOLDEN / "infra/managed/lapwing.yaml"
    found = estimate(read(environments(path, folders=False)), book(), today=today)
    lines = {line.item: line.low for line in found.lines if "extended support" in line.item}
    assert lines.get("archive: Cloud SQL extended support") == amount
    assert not {"db: Cloud SQL extended support", "sessions: Cloud SQL extended support"} & {*lines}


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [("3.49", "3.53", "3.49 to 3.53"), ("3.53", "3.49", "3.49 to 3.53"), ("3.5", "3.50", "3.50")],
)
def test_ends_of_a_range_are_in_order(low: str, high: str, text: str) -> None:
    """The saving with the lowest load may be greater than that with the highest."""
    assert report.span(Decimal(low), Decimal(high)) == text
