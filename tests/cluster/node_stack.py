"""A stack on a real node, and what an administrator and a client see of it."""

from __future__ import annotations

import base64
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lapwing.load.connection import Target
from tests.cluster.control_plane import wait_until
from tests.cluster.node import Node
from tests.installation import Installation
from tests.registries import Server


class NodeStack(Installation):
    """The stack `name` in an environment that is the node; its domain is `host`."""

    environment = "node"

    def __init__(
        self, root: Path, node: Node, registry: Server, environ: dict[str, str], name: str
    ) -> None:
        super().__init__(root, **environ)
        self.environ["KUBECONFIG"] = str(node.cluster.kubeconfig)
        self.node, self.registry = node, registry
        self.name, self.host = name, f"{name}.example"
        self.namespace = f"{name}-{self.environment}"

    def edge(self) -> Target:
        """The edge's Service, with the certificate that was generated for it.

        The node forwards connections to it a moment after its pods have become ready.
        """
        authority = self.home.with_name("edge.pem")
        authority.write_text(self.secret(f"{self.name}-edge-tls", "tls.crt"))
        address = self.get(f"services/{self.name}-edge")["spec"]["clusterIP"]
        wait_until(lambda: accepts(address, 443), "the node forwards connections to the edge")
        return Target(f"https://{self.host}", address, str(authority), timeout=30.0)

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
        path = f"/apis/apps/v1/namespaces/{self.namespace}/deployments/{self.name}-edge"
        merge = "application/merge-patch+json"
        self.node.cluster.call("PATCH", path, {"spec": {"template": template}}, merge)

    def secret(self, name: str, key: str) -> str:
        """A value of a Secret."""
        return base64.b64decode(self.get(f"secrets/{name}")["data"][key]).decode()

    def address_of(self, pod: str) -> str:
        """The IP address of a pod, when it is ready."""

        def is_ready() -> bool:
            status = (self.get(f"pods/{pod}") or {}).get("status", {})
            conditions = {c["type"]: c["status"] for c in status.get("conditions", ())}
            return conditions.get("Ready") == "True"

        wait_until(is_ready, f"{pod} is ready")
        return str(self.get(f"pods/{pod}")["status"]["podIP"])

    def replace(self, pod: str) -> None:
        """Delete a pod of a StatefulSet, and wait until another one has its name."""
        uid = self.get(f"pods/{pod}")["metadata"]["uid"]
        self.node.cluster.call("DELETE", f"/api/v1/namespaces/{self.namespace}/pods/{pod}")

        def is_replaced() -> bool:
            found = self.get(f"pods/{pod}")
            return found is not None and found["metadata"]["uid"] != uid

        wait_until(is_replaced, f"{pod} is replaced")


def accepts(address: str, port: int) -> bool:
    """Whether a new connection is accepted."""
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex((address, port)) == 0
