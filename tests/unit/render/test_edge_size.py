"""The size of the edge: Fleet's reference sizes, and what holds for every size."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.inventory.kubernetes import from_kubernetes, quantity
from lapwing.render.kubernetes import edge, render
from lapwing.render.kubernetes.edge_size import (
    BODIES,
    CONNECTION_BYTES,
    IDLE_BYTES,
    MAX_CPU,
    edge_size,
)
from lapwing.stack.load import load
from tests.unit.render.clusters import cluster_environment

FLEET = Path(__file__).parents[3] / "stacks" / "fleetdm" / "lapwing.yaml"


@pytest.mark.parametrize(
    ("environment", "devices", "pods", "cpu"),
    [
        ("kind", 1_000, (2, 3), 100),
        ("hosts-1000", 1_000, (2, 4), 100),
        ("hosts-25000", 25_000, (2, 3), 500),
        ("hosts-150000", 150_000, (3, 5), 1_000),
        ("production", 1_000, (2, 4), 100),
    ],
)
def test_edge_of_fleet_has_connections_for_every_device_without_one_pod(
    environment: str, devices: int, pods: tuple[int, int], cpu: int
) -> None:
    size = edge.size_of(render.prepare(load(FLEET, environment, folders=False)))
    assert ((size.pods, size.max_pods), size.cpu) == (pods, cpu)
    assert size.max_connections * (size.pods - 1) >= devices


cpu = st.integers(1, 200_000)


@given(cpu, cpu, st.booleans(), st.booleans(), st.integers(0, 2**30))
def test_memory_of_a_pod_holds_what_its_limits_allow(
    least: int, more: int, replicated: bool, scaled: bool, max_body: int
) -> None:
    size = edge_size(least, least + more, replicated=replicated, scaled=scaled, max_body=max_body)
    needed = IDLE_BYTES + BODIES * max_body + size.max_connections * CONNECTION_BYTES
    assert needed <= size.memory < needed + CONNECTION_BYTES
    assert size.max_heap < size.memory
    assert size.pods * size.cpu * 10 >= least
    assert size.cpu <= MAX_CPU
    assert 1 + replicated <= size.pods <= size.max_pods
    assert (size.max_pods > size.pods) == scaled


@given(cpu, cpu)
def test_more_services_never_have_a_smaller_edge(least: int, more: int) -> None:
    sizes = [edge_size(cpu, 2 * cpu, replicated=True, scaled=True) for cpu in (least, least + more)]
    cpus = [s.pods * s.cpu for s in sizes]
    connections = [s.max_connections * (s.pods - 1) for s in sizes]
    assert cpus == sorted(cpus)
    assert connections == sorted(connections)


def test_inventory_reads_the_size_of_the_edge_from_the_rendered_objects() -> None:
    made = cluster_environment("company-inc", "production")
    size = edge.size_of(made)
    [pods] = [p for p in from_kubernetes(render.objects(made)).pods if p.part == "edge"]
    assert (pods.min, pods.max) == (size.pods, size.max_pods)
    assert pods.requests.cpu == quantity(f"{size.cpu}m")
    assert pods.requests.memory == size.memory
