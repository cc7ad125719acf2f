"""What runs on a real node beside stacks: CoreDNS, set up as kubeadm does, and another pod."""

from __future__ import annotations

from typing import Any

from tests.cluster.control_plane import Cluster

DNS_ADDRESS = "10.96.0.10"
COREFILE = """
cluster.local in-addr.arpa ip6.arpa {
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 30
    }
    cache 30
}
. {
    ready
    template ANY ANY {
        rcode NXDOMAIN
    }
}
"""
"""Only names of the cluster are resolved: the network has no other DNS server."""
_LABELS = {"k8s-app": "kube-dns"}


def install_dns(cluster: Cluster) -> None:
    """Apply CoreDNS. Pods can resolve names once it is ready."""
    reads = [
        {"apiGroups": [group], "resources": resources, "verbs": ["list", "watch"]}
        for group, resources in (
            ("", ["endpoints", "services", "pods", "namespaces"]),
            ("discovery.k8s.io", ["endpointslices"]),
        )
    ]
    account = {"kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "coredns"}
    rbac = "apis/rbac.authorization.k8s.io/v1"
    system = "namespaces/kube-system"
    _apply(cluster, "api/v1/namespaces", "Namespace", "kube-system")
    _apply(cluster, f"api/v1/{system}/serviceaccounts", "ServiceAccount", "coredns")
    _apply(cluster, f"{rbac}/clusterroles", "ClusterRole", "coredns", rules=reads)
    _apply(
        cluster, f"{rbac}/clusterrolebindings", "ClusterRoleBinding", "coredns",
        roleRef=role, subjects=[account],
    )  # fmt: skip
    _apply(
        cluster, f"api/v1/{system}/configmaps", "ConfigMap", "coredns",
        data={"Corefile": COREFILE},
    )  # fmt: skip
    ports = [{"name": p.lower(), "port": 53, "protocol": p} for p in ("UDP", "TCP")]
    service = {"selector": _LABELS, "clusterIP": DNS_ADDRESS, "ports": ports}
    _apply(cluster, f"api/v1/{system}/services", "Service", "kube-dns", spec=service)
    workload = {"selector": {"matchLabels": _LABELS}, "template": _pod()}
    _apply(cluster, f"apis/apps/v1/{system}/deployments", "Deployment", "coredns", spec=workload)


def add_pause(cluster: Cluster, name: str) -> None:
    """Add a pod of no stack, which does nothing."""
    container = {"name": "pause", "image": "docker.io/library/pause:1"}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container], "automountServiceAccountToken": False},
    }
    cluster.call("POST", "/api/v1/namespaces/default/pods", pod)


def _pod() -> dict[str, Any]:
    container = {
        "name": "coredns",
        "image": "docker.io/library/coredns:1",
        "args": ["-conf", "/etc/coredns/Corefile"],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8181}, "periodSeconds": 1},
        "volumeMounts": [{"name": "config", "mountPath": "/etc/coredns"}],
    }
    spec = {
        "serviceAccountName": "coredns",
        "dnsPolicy": "Default",
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": "coredns"}}],
    }
    return {"metadata": {"labels": _LABELS}, "spec": spec}


def _apply(cluster: Cluster, at: str, kind: str, name: str, **fields: Any) -> None:
    root = at.partition("/namespaces")[0] if kind != "Namespace" else "api/v1"
    version = root.removeprefix("apis/").removeprefix("api/").split("/")
    api = "/".join(version[:2] if root.startswith("apis/") else version[:1])
    thing = {"apiVersion": api, "kind": kind, "metadata": {"name": name}, **fields}
    cluster.call("PATCH", f"/{at}/{name}?fieldManager=test&force=true", thing, "apply")
