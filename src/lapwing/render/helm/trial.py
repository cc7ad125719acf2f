"""`helm test`: a pod that requests the health path of every routed service, through the edge.

It takes the path of a client, so it checks names, routes, the edge, network policies and readiness
together. The test may connect to the edge, and to nothing else; the edge accepts it.
"""

from __future__ import annotations

from typing import Any

from lapwing.render.kubernetes import edge, pod, pod_settings
from lapwing.render.kubernetes.analysis import CURL, CURL_USER
from lapwing.render.kubernetes.edge_config import ends_tls
from lapwing.render.kubernetes.objects import ClusterEnvironment, name, new_object, selector
from lapwing.render.kubernetes.setting import MERGE, Setting, join
from lapwing.system.package_data import read

FILE = "tests/reached.yaml"
PART = "test"
SCRIPT = read("render.helm", "scripts/reached.sh")
"""The certificate may be self-signed, so it is not verified. Paths are not file patterns (-f)."""


def objects(cluster: ClusterEnvironment) -> list[dict[str, Any]]:
    """Build the test and its network policies; nothing if no service has a route."""
    if not edge.is_needed(cluster):
        return []
    hook = {
        "helm.sh/hook": "test",
        "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
    }
    test = {"podSelector": {"matchLabels": selector(PART)}}
    front = {"podSelector": {"matchLabels": selector("edge")}}
    web = [{"protocol": "TCP", "port": "web"}]
    out = {**test, "policyTypes": ["Egress"], "egress": [{"to": [front], "ports": web}]}
    into = {**front, "policyTypes": ["Ingress"], "ingress": [{"from": [test], "ports": web}]}
    return [
        new_object(cluster, "v1", "Pod", PART, "test", annotations=hook, spec=_pod(cluster)),
        _policy(cluster, "test", out),
        _policy(cluster, "edge-test", into),
    ]


def _policy(cluster: ClusterEnvironment, part: str, spec: dict[str, Any]) -> dict[str, Any]:
    return new_object(
        cluster, "networking.k8s.io/v1", "NetworkPolicy", PART, "network",
        called=name(part), spec=spec,
    )  # fmt: skip


def _pod(cluster: ClusterEnvironment) -> dict[str, Any]:
    routed = [s for s in cluster.services.values() if s.route]
    paths = " ".join(dict.fromkeys(s.health.path or s.route or "/" for s in routed))
    scheme = "https" if ends_tls(cluster) else "http"
    address = join(f"{scheme}://", name("edge"), f":{edge.service_port(cluster)}")
    return {
        "restartPolicy": "Never",
        **pod.NO_TOKEN,
        "securityContext": pod.security(CURL_USER, group=CURL_USER),
        "containers": [
            {
                "name": "reached",
                "image": Setting(
                    "test.image", cluster.pinned(CURL), "The image of `helm test`, with curl."
                ),
                "command": ["/bin/sh", "-euc", SCRIPT],
                "env": [
                    {"name": "PATHS", "value": pod.literal(paths)},
                    {"name": "HOST", "value": cluster.settings.domain or "localhost"},
                    {"name": "EDGE", "value": address},
                ],
                "resources": {
                    "requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"},
                },
                "securityContext": pod.CONTAINER,
            }
        ],
        MERGE: pod_settings.extra_spec(cluster),
    }  # fmt: skip
