"""Stacks on a real node: images that Lapwing builds, in containers, behind the rendered edge."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lapwing.load.client import Plan, running
from lapwing.load.record import now
from lapwing.load.worker import Traffic
from tests.cluster import node_cache, node_flows, node_objects
from tests.cluster.control_plane import wait_until
from tests.cluster.node_cache import CACHE
from tests.cluster.node_shop import KEPT, TRAFFIC, Shop
from tests.conftest import FIGURES

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900), pytest.mark.xdist_group("node")]

STREAM_S = 45
"""Longer than load balancers need to remove a pod."""
STREAMS = (
    Traffic(kind="websocket", path="/api/ws", seconds=STREAM_S, interval=0.2),
    Traffic(kind="events", path="/api/events", seconds=STREAM_S),
)

PORTS = {"api": [8080], "web": [8080], "edge": [8443, 9902, 9903], "cache": [6379]}
"""The ports on which the pods of the stack listen."""
FLOWS = {
    ("edge", "api", 8080),
    ("edge", "web", 8080),
    ("api", "cache", 6379),
    ("stranger", "edge", 8443),
    *((part, "dns", 53) for part in (*PORTS, "stranger")),
    ("stranger", "dns", 8181),
}
"""Clients connect to the edge, the edge to services, and a service to the resource that it needs;
pods in another namespace accept every connection."""


def test_deploy_rollback_and_down_on_a_real_node(shop: Shop, tmp_path: Path) -> None:
    shop.release("v0")
    assert "not checked" not in shop.run("up", "-e", "node", "--yes").stderr
    plan = Plan(shop.edge(), TRAFFIC)
    with running(plan, tmp_path) as client:
        client.wait_for_answers()
        shop.release("v1")
        assert shop.json("deploy", "-e", "node", "--yes")["outcome"] == "succeeded"
        assert shop.json("rollback", "-e", "node", "--yes")["outcome"] == "succeeded"
        ledger = client.stop()
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []
    assert {"v0", "v1"} <= set(ledger.versions())
    shop.run("down", "-e", "node", "--yes")
    wait_until(lambda: not shop.get("pods")["items"], "every pod has ended")


def test_replaced_edge_pod_fails_no_request_and_cuts_no_stream(shop: Shop, tmp_path: Path) -> None:
    shop.release("v0")
    shop.json("up", "-e", "node", "--yes")
    old = set(shop.edge_pods())
    with running(Plan(shop.edge(), (*TRAFFIC, *STREAMS)), tmp_path) as client:
        client.wait_for_answers()
        restarted = now()
        shop.restart_edge()
        wait_until(lambda: not old & set(shop.edge_pods()), "the old edge pod has ended", 240)
        ledger = client.stop()
    assert [(e.kind, e.failure, e.took) for e in ledger.failures] == []
    whole = [e for e in ledger.exchanges if e.began < restarted and e.took >= STREAM_S]
    assert {e.kind for e in whole} == {"websocket", "events"}


def test_network_policies_allow_only_what_the_stack_implies(shop: Shop, tmp_path: Path) -> None:
    node = shop.node
    node_cache.prepare(shop, tmp_path)
    shop.settings_of(cache=CACHE.format(storage="1Gi"))
    shop.release("v0")
    shop.run("up", "-e", "node", "--yes")
    node_objects.add_pause(node.cluster, "stranger")
    where = {part: (shop.namespace, f"app.kubernetes.io/name={part}") for part in PORTS}
    where |= {"stranger": ("default", "app=stranger"), "dns": ("kube-system", "k8s-app=kube-dns")}
    found: dict[str, Any] = {}

    def all_have_addresses() -> bool:
        found.update({part: node_flows.pod_of(node, *labels) for part, labels in where.items()})
        return None not in found.values()

    wait_until(all_have_addresses, "every pod has an address")
    targets = [
        (part, found[part]["status"]["podIP"], port)
        for part, ports in {**PORTS, "dns": [53, 8181]}.items()
        for port in ports
    ]
    sources = {part: pod for part, pod in found.items() if part != "dns"}
    until = time.monotonic() + 60  # Policies are enforced a moment after a pod has started.
    while (flows := node_flows.connections(node, sources, targets)) != FLOWS:
        assert time.monotonic() < until, (flows - FLOWS, FLOWS - flows)


def test_no_request_fails_while_argo_rollouts_switches(
    rollouts: Shop, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    shop = rollouts
    shop.release("v0")
    shop.json("up", "-e", "node", "--yes")
    plan = Plan(shop.edge(), (*TRAFFIC, KEPT))
    with running(plan, tmp_path) as client:
        client.wait_for_answers()
        for number in range(1, 4):
            shop.release(f"v{number}")
            assert shop.json("deploy", "-e", "node", "--yes")["outcome"] == "succeeded"
            if number == 2:
                assert shop.json("rollback", "-e", "node", "--yes")["outcome"] == "succeeded"
        ledger = client.stop()
        pods = shop.get("pods")["items"]
    analysed = [p["status"]["phase"] for p in pods if ".traffic." in p["metadata"]["name"]]
    assert set(analysed) == {"Succeeded"}
    record_property(FIGURES, f"{ledger.sent} requests, {len(ledger.failures)} failed")
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []
    assert {"v0", "v1", "v2", "v3"} <= set(ledger.versions())
