"""What holds for every estimate, whatever the stack."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.cost import autopilot
from lapwing.cost.book import HOURS, Book, Price, book
from lapwing.cost.estimate import estimate
from lapwing.cost.ledger import Estimate, changed_lines
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Stack

MIB = 2**20


def loaded(**service: Any) -> LoadedStack:
    """A stack of one service in production, without a file."""
    environment = {
        "target": "kubernetes",
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


def cost(cpu: int, memory: int, least: int, most: int) -> Estimate:
    """The estimate for replicas of `cpu` thousandths of a core and `memory` MiB."""
    service = {
        "replicas": {"min": least, "max": most},
        "resources": {"cpu": f"{cpu}m", "memory": f"{memory}Mi"},
    }
    return estimate([loaded(**service)], book())


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
    assert all(x.low <= x.high for x in known if x.low is not None and x.high is not None)
    assert all(line.low == line.low.quantize(Decimal("0.01")) for line in known if line.low)
    for key in ("environment", "project", "part"):
        assert sum(low for low, _ in found.by(key).values()) == found.low
        assert sum(high for _, high in found.by(key).values()) == found.high


@settings(max_examples=60)
@given(cpus, memories, replicas, replicas, st.integers(0, 4000), st.integers(0, 8000), replicas)
def test_larger_requests_never_cost_less(
    cpu: int, memory: int, least: int, more: int, cpu_more: int, memory_more: int, extra: int
) -> None:
    small = without_gateway(cost(cpu, memory, least, least + more))
    for large in (
        cost(cpu + cpu_more, memory, least, least + more),
        cost(cpu, memory + memory_more, least, least + more),
        cost(cpu, memory, least, least + more + extra),
        cost(cpu, memory, min(least + extra, least + more), least + more),
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
    one = loaded()
    for count, more in ((1, None), (5, None), (6, Decimal("7.30")), (7, Decimal("14.60"))):
        cloud = one.settings.cloud
        assert cloud is not None
        same = one.settings.model_copy(
            update={"cloud": cloud.model_copy(update={"project": "all-of-them"})}
        )
        stacks = [LoadedStack(one.stack, f"e{n}", same, one.path) for n in range(count)]
        lines = {x.item: x.low for x in estimate(stacks, book()).lines}
        assert lines["Load balancer: forwarding rules"] == Decimal("18.25")
        assert lines.get("Load balancer: additional rules") == more
        assert sum(1 for x in estimate(stacks, book()).lines if x.item == "Cluster fee") == 1


def test_credit_covers_one_cluster() -> None:
    one = loaded()
    stacks = [LoadedStack(one.stack, name, one.settings, one.path) for name in ("qa", "production")]
    lines = [(x.item, x.low) for x in estimate(stacks, book()).lines if x.part == "cluster"]
    assert lines == [
        ("Cluster fee", Decimal("73.00")),
        ("Credit for one cluster", Decimal("-73.00")),
        ("Cluster fee", Decimal("73.00")),
    ]


def test_free_tier_is_not_billed() -> None:
    def secrets(count: int) -> Decimal | None:
        lines = estimate([loaded(secrets=[f"S{n}" for n in range(count)])], book()).lines
        return next((x.low for x in lines if x.item == "Secret versions"), None)

    assert [secrets(n) for n in (0, 1, 6, 7, 20)] == [
        None, Decimal("0.00"), Decimal("0.00"), Decimal("0.06"), Decimal("0.84"),
    ]  # fmt: skip


def test_price_applies_only_in_its_region() -> None:
    only = Price("autopilot.cpu", Decimal(1), "vCPU-hour", ("asia-east1",), "official", "x", "2026")
    found = estimate([loaded()], Book((only,)))
    line = next(x for x in found.lines if x.item == "api: vCPU")
    assert (line.low, line.high, line.unit_price, line.known) == (None, None, None, False)
    assert "no price for us-central1; there is one for asia-east1" in line.note
    assert found.low == found.high == 0


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
