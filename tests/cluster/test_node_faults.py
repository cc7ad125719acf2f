"""Twenty switches by Argo Rollouts on a real node, in which parts of the cluster are killed."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from lapwing.load.client import Plan, running
from tests.cluster.node_shop import KEPT, TRAFFIC, Shop
from tests.conftest import FIGURES

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3000), pytest.mark.xdist_group("node")]

SWITCHES = 20
ROLLBACK_EVERY = 4
LATEST_FAULT_S = 15.0
"""A switch takes about this time."""


def test_no_request_fails_in_twenty_switches_while_parts_are_killed(
    rollouts: Shop, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    shop, moment = rollouts, random.Random(1)
    faults = {
        "edge pod": shop.delete_edge_pod,
        "kubelet": shop.node.restart_kubelet,
        "rollouts controller": shop.node.cluster.restart_rollouts,
    }
    shop.release("v0")
    shop.json("up", "-e", "node", "--yes")
    expected, done = {"v0"}, []
    with running(Plan(shop.edge(), (*TRAFFIC, KEPT)), tmp_path) as client:
        client.wait_for_answers()
        for number in range(1, SWITCHES + 1):
            name, act = list(faults.items())[number % len(faults)]
            fault = threading.Timer(moment.uniform(0, LATEST_FAULT_S), act)
            fault.start()
            if number % ROLLBACK_EVERY:
                shop.release(f"v{number}")
                expected.add(f"v{number}")
                outcome = shop.json("deploy", "-e", "node", "--yes")["outcome"]
            else:
                outcome = shop.json("rollback", "-e", "node", "--yes")["outcome"]
            fault.join()
            done.append((name, outcome))
        ledger = client.stop()
    kept = sum(e.kind == "websocket" for e in ledger.exchanges)
    figures = f"{ledger.sent} requests, {kept} of them websockets, {len(ledger.failures)} failed"
    record_property(FIGURES, figures)
    assert [outcome for _, outcome in done] == ["succeeded"] * SWITCHES, done
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []
    assert expected <= set(ledger.versions())
