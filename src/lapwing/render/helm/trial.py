"""`helm test`: a pod that asks every service that has a route for its health, through the edge.

It goes the way of a client, so it shows that names, routes, the edge, network policies and
readiness fit together. The test may reach the edge, and nothing else; the edge lets it in.
"""

from __future__ import annotations

from typing import Any

from lapwing.render.helm.secrets import IMAGE, USER
from lapwing.render.kubernetes import edge, pod
from lapwing.render.kubernetes.setting import Setting, join
from lapwing.render.kubernetes.target import Target, meta, name, selector

FILE = "tests/reached.yaml"
PART = "test"
SCRIPT = (
    "for path in $PATHS; do\n"
    '  echo "GET $path"\n'
    "  curl --fail --silent --show-error --insecure --output /dev/null --retry 12 \\\n"
    "    --retry-all-errors --retry-max-time 120 --max-time 20 \\\n"
    '    --header "Host: $HOST" "$EDGE$path"\n'
    "done\n"
)
"""The certificate may be a self-signed one, so it is not judged here."""


def objects(target: Target) -> list[dict[str, Any]]:
    """The test, and what it may reach; nothing where no service has a route."""
    if not edge.is_needed(target):
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
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**meta(target, name(PART), PART, "test", hook)},
            "spec": _pod(target),
        },
        _policy(target, "test", out),
        _policy(target, "edge-test", into),
    ]


def _policy(target: Target, part: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": meta(target, name(part), PART, "network"),
        "spec": spec,
    }


def _pod(target: Target) -> dict[str, Any]:
    routed = [s for s in target.services.values() if s.route]
    paths = " ".join(dict.fromkeys(s.health.path or s.route or "/" for s in routed))
    scheme = "https" if edge.ends_tls(target) else "http"
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": USER, "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "reached",
                "image": Setting("test.image", IMAGE, "What `helm test` asks with: curl."),
                "command": ["/bin/sh", "-euc", SCRIPT],
                "env": [
                    {"name": "PATHS", "value": paths},
                    {"name": "HOST", "value": target.environment.domain or "localhost"},
                    {
                        "name": "EDGE",
                        "value": join(f"{scheme}://", name("edge"), f":{edge.front(target)}"),
                    },
                ],
                "resources": {
                    "requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"},
                },
                "securityContext": pod.CONTAINER,
            }
        ],
    }  # fmt: skip
