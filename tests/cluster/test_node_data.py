"""Databases on a real node: `helm upgrade` to a larger size and a larger volume keep their data."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.load.client import Plan, running
from lapwing.render.helm import secrets
from lapwing.render.kubernetes.analysis import CURL
from tests.cluster import node_cache, node_images
from tests.cluster.control_plane import wait_until
from tests.cluster.node_cache import CACHE, redis
from tests.cluster.node_shop import TRAFFIC, Shop
from tests.needs import require
from tests.registries import Server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200), pytest.mark.xdist_group("node")]

LARGE = 128 * 2**20
LARGE_ENVIRONMENT = """\
  large:
    target: kubernetes
    domain: shop.example
    registry: "{registry}/shop"
    services: {{api: {{replicas: 3}}}}
    resources: {{cache: {{resources: {{memory: 128Mi}}}}}}
"""


@pytest.fixture
def helm_shop(shop: Shop) -> Iterator[Shop]:
    """The stack, whose objects belong to Helm: `down` leaves them."""
    yield shop
    namespace = f"/api/v1/namespaces/{shop.namespace}"
    shop.node.cluster.call("DELETE", namespace)
    wait_until(lambda: shop.node.cluster.call("GET", namespace) is None, "the namespace is removed")


def test_helm_upgrade_to_a_larger_size_keeps_the_data(
    helm_shop: Shop, registry: Server, tmp_path: Path
) -> None:
    shop, helm = helm_shop, require("helm")
    node_cache.prepare(shop, tmp_path)
    node_images.push_curl(registry, tmp_path, CURL)
    node_images.push_openssl(registry, tmp_path, secrets.SIGNER)
    larger = LARGE_ENVIRONMENT.format(registry=registry.host)
    shop.settings_of(cache=CACHE.format(storage="1Gi"), environments=larger)
    shop.release("v0")
    built = shop.json("image", "build", "-e", "node", "--push", "--plain-http")
    chart = tmp_path / "chart"
    images = [f"--image={i['service']}={i['repository']}@{i['digest']}" for i in built["images"]]
    shop.run("chart", "-e", "node", "-o", str(chart), *images)
    arguments = ("shop", str(chart), f"--namespace={shop.namespace}", "--wait", "--timeout=5m")

    def call(*words: str) -> None:
        command = [helm, *words, *arguments]
        done = subprocess.run(command, env=shop.environ, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    call("install", "--create-namespace")
    assert redis(shop, "SET", "order", "17") == "OK"
    with running(Plan(shop.edge(), TRAFFIC), tmp_path) as client:
        client.wait_for_answers()
        call("upgrade", f"--values={chart / 'values-large.yaml'}")
        ledger = client.stop()
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []
    assert redis(shop, "GET", "order") == "17"
    assert redis(shop, "CONFIG", "GET", "maxmemory").split()[1] == str(LARGE // 4 * 3)
    assert api_replicas(shop) == 3


def test_volume_grows_while_its_database_serves(shop: Shop, tmp_path: Path) -> None:
    """The file system is not resized: this node has no CSI driver."""
    node_cache.prepare(shop, tmp_path)
    shop.settings_of(cache=CACHE.format(storage="1Gi"))
    shop.release("v0")
    shop.json("up", "-e", "node", "--yes")
    assert redis(shop, "SET", "order", "17") == "OK"
    pod = shop.get(f"pods/{node_cache.POD}")
    shop.settings_of(cache=CACHE.format(storage="2Gi"))
    with running(Plan(shop.edge(), TRAFFIC), tmp_path) as client:
        client.wait_for_answers()
        assert "from 1Gi to 2Gi" in shop.run("deploy", "-e", "node", "--yes").stderr
        ledger = client.stop()
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []
    assert redis(shop, "GET", "order") == "17"
    same = shop.get(f"pods/{node_cache.POD}")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert [c["restartCount"] for c in same["status"]["containerStatuses"]] == [0]
    [claim] = shop.get("persistentvolumeclaims")["items"]
    assert claim["spec"]["resources"]["requests"]["storage"] == "2Gi"


def api_replicas(shop: Shop) -> int:
    """The number of ready replicas of the service."""
    path = f"/apis/apps/v1/namespaces/{shop.namespace}/deployments/shop-api"
    return int(shop.node.cluster.call("GET", path)["status"]["readyReplicas"])
