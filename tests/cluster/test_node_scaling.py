"""An autoscaler on a real node: metrics-server of `lapwing bootstrap` measures real containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.load.client import Plan, running
from lapwing.render.kubernetes.addons import METRICS_SERVER
from tests.cluster import node_images
from tests.cluster.control_plane import wait_until
from tests.cluster.node_shop import TRAFFIC, Shop
from tests.needs import require
from tests.registries import Server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200), pytest.mark.xdist_group("node")]

MAX = 3
REPLICAS = f"{{min: 1, max: {MAX}, cpu: 20%}}"


def test_autoscaler_adds_replicas_by_measured_cpu(
    rollouts: Shop, registry: Server, tmp_path: Path
) -> None:
    shop = rollouts
    program = Path(require("node-parts")) / "metrics-server"
    image = f"metrics-server/metrics-server:v{METRICS_SERVER.version}"
    node_images.push(registry, tmp_path, image, {"metrics-server": program}, ["/metrics-server"])
    shop.settings_of(replicas=REPLICAS)
    shop.run("bootstrap", "-e", "node", "--yes")
    shop.settings_of(", rollouts: true", replicas=REPLICAS)
    shop.release("v0")
    shop.json("up", "-e", "node", "--yes")

    def replicas() -> int:
        path = f"/apis/argoproj.io/v1alpha1/namespaces/{shop.namespace}/rollouts/shop-api"
        return int(shop.node.cluster.call("GET", path)["status"].get("readyReplicas", 0))

    assert replicas() == 1
    with running(Plan(shop.edge(), TRAFFIC), tmp_path) as client:
        client.wait_for_answers()
        wait_until(lambda: replicas() == MAX, "the autoscaler has added replicas", 300)
        shop.release("v1")
        assert shop.json("deploy", "-e", "node", "--yes")["outcome"] == "succeeded"
        assert replicas() == MAX
        ledger = client.stop()
    # The pods of a new release are measured some seconds after it serves.
    wait_until(lambda: uses_measured_cpu(shop), "the autoscaler uses measured CPU")
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []


def uses_measured_cpu(shop: Shop) -> bool:
    """Whether the autoscaler of the service has a valid metric."""
    path = f"/apis/autoscaling/v2/namespaces/{shop.namespace}/horizontalpodautoscalers/shop-api"
    conditions = shop.node.cluster.call("GET", path)["status"]["conditions"]
    [active] = [c for c in conditions if c["type"] == "ScalingActive"]
    return (active["status"], active["reason"]) == ("True", "ValidMetricFound")
