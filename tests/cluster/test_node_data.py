"""A chart with a database on a real node: `helm upgrade` to a larger size keeps its data."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lapwing.load.client import Plan, running
from lapwing.render.helm import secrets
from tests.cluster import node_images
from tests.cluster.control_plane import wait_until
from tests.cluster.node_shop import TRAFFIC, Shop
from tests.needs import require
from tests.registries import Server

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200), pytest.mark.xdist_group("node")]

VOLUME = "/run/volumes/cache"
LARGE = 128 * 2**20
CACHE = "{kind: redis, storage: 1Gi, resources: {cpu: 50m, memory: 64Mi}}"
LARGE_ENVIRONMENT = """\
  large:
    target: kubernetes
    domain: shop.example
    registry: "{registry}/shop"
    services: {{api: {{replicas: 3}}}}
    resources: {{cache: {{resources: {{memory: 128Mi}}}}}}
"""


def test_helm_upgrade_to_a_larger_size_keeps_the_data(
    shop: Shop, registry: Server, tmp_path: Path
) -> None:
    helm = require("helm")
    node_images.push_redis(registry, tmp_path)
    node_images.push_curl(registry, tmp_path, secrets.IMAGE)
    node_images.push_openssl(registry, tmp_path, secrets.SIGNER)
    add_volume(shop)
    larger = LARGE_ENVIRONMENT.format(registry=registry.host)
    shop.settings_of(cache=CACHE, environments=larger)
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


def add_volume(shop: Shop) -> None:
    """Add a volume on the node that the user of Redis may write to."""
    shop.node.run("mkdir", "--parents", "--mode=777", VOLUME)
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": VOLUME},
    }
    volume: dict[str, Any] = {"apiVersion": "v1", "kind": "PersistentVolume", "spec": spec}
    volume["metadata"] = {"name": "cache"}
    shop.node.cluster.call("POST", "/api/v1/persistentvolumes", volume)


def redis(shop: Shop, *command: str) -> str:
    """Send a command to the Redis of the stack, with its password."""
    password = base64.b64decode(shop.get("secrets/shop-cache")["data"]["password"]).decode()
    address: str | None = None

    def has_address() -> bool:
        nonlocal address
        pod = shop.get("pods/shop-cache-0") or {}
        ready = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", ())}
        address = pod.get("status", {}).get("podIP") if ready.get("Ready") == "True" else None
        return address is not None

    wait_until(has_address, "Redis is ready")
    call = ["redis-cli", "-h", str(address), *command]
    environ = {**shop.environ, "REDISCLI_AUTH": password}
    done = subprocess.run(call, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def api_replicas(shop: Shop) -> int:
    """The number of ready replicas of the service."""
    path = f"/apis/apps/v1/namespaces/{shop.namespace}/deployments/shop-api"
    return int(shop.node.cluster.call("GET", path)["status"]["readyReplicas"])
