"""A stack of two services on a real node: the files, the traffic to it, and its objects."""

from __future__ import annotations

import base64
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lapwing.load.connection import Target
from lapwing.load.worker import Traffic
from tests.cluster import node_images
from tests.cluster.control_plane import wait_until
from tests.cluster.node import Node
from tests.installation import Installation
from tests.integration.switching.service import run
from tests.registries import Server

STACK = """
stack: shop
services:
  api:
    build: {{path: ./api, base: "{registry}/{python}"}}
    command: python app.py
    route: /api
    health: /api/healthz
    replicas: {replicas}
    needs: [{needs}]
    rollout:
      smoke:
        - {{get: /api/version, expect: 200, contains: v}}
        - {{run: python -c "open('VERSION')"}}
      analysis: {{window: 5s, max_error_rate: 1%}}
      keep_old: 30s
  web: {{build: ./web, static: ., route: /, rollout: {{analysis: false, keep_old: 30s}}}}
resources: {{{resources}}}
environments:
  node: {{target: kubernetes, domain: shop.example, registry: "{registry}/shop"{more}}}
{environments}"""
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


class Shop(Installation):
    """A stack of two services, deployed to the node."""

    def __init__(self, root: Path, node: Node, registry: Server, environ: dict[str, str]) -> None:
        super().__init__(root, **environ)
        self.environ["KUBECONFIG"] = str(node.cluster.kubeconfig)
        self.node, self.registry = node, registry
        self.namespace = "shop-node"

    def settings_of(
        self, more: str = "", replicas: str = "2", cache: str = "", environments: str = ""
    ) -> None:
        """Write the stack file: more keys of the environment, a Redis resource, environments."""
        text = STACK.format(
            registry=self.registry.host,
            python=node_images.PYTHON,
            more=more,
            replicas=replicas,
            environments=environments,
            needs="cache" if cache else "",
            resources=f"cache: {cache}" if cache else "",
        )
        (self.folder / "lapwing.yaml").write_text(text)

    def release(self, version: str) -> None:
        """Commit a version of both services."""
        run.source(self.folder / "api", version, prefix="/api")
        page = f'version {version} <script src="/assets/app-{version:x<8}.js"></script>'
        self.write({"web/index.html": page, f"web/assets/app-{version:x<8}.js": "//"})

    def edge(self) -> Target:
        """The edge's Service, with the certificate that was generated for it.

        The node forwards connections to it a moment after its pods have become ready. One that is
        begun while kube-proxy replaces the rules may be lost whole: the kernel tracks it without
        the Service's rule, also when the client sends its SYN again.
        """
        authority = self.folder.parent / "edge.pem"
        certificate = self.get("secrets/shop-edge-tls")["data"]["tls.crt"]
        authority.write_bytes(base64.b64decode(certificate))
        address = self.get("services/shop-edge")["spec"]["clusterIP"]
        wait_until(lambda: accepts(address, 443), "the node forwards connections to the edge")
        return Target("https://shop.example", address, str(authority), timeout=30.0)

    def get(self, path: str) -> Any:
        """An object of the namespace."""
        return self.node.cluster.call("GET", f"/api/v1/namespaces/{self.namespace}/{path}")

    def edge_pods(self) -> list[str]:
        """The names of Envoy's pods, also of those that terminate."""
        pods = self.get("pods?labelSelector=app.kubernetes.io/component%3Dedge")["items"]
        return [pod["metadata"]["name"] for pod in pods]

    def delete_edge_pod(self) -> None:
        """Delete a pod of the edge, as the drain of a node does."""
        self.node.cluster.call(
            "DELETE", f"/api/v1/namespaces/{self.namespace}/pods/{self.edge_pods()[0]}"
        )

    def restart_edge(self) -> None:
        """Replace the pods of the edge, as `kubectl rollout restart` does."""
        annotations = {"kubectl.kubernetes.io/restartedAt": datetime.now(UTC).isoformat()}
        template = {"metadata": {"annotations": annotations}}
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/shop-edge"
        merge = "application/merge-patch+json"
        self.node.cluster.call("PATCH", path, {"spec": {"template": template}}, merge)


def accepts(address: str, port: int) -> bool:
    """Whether a new connection is accepted."""
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex((address, port)) == 0
