"""What kwok lets a simulated pod do: print, and take connections.

Its `Logs` names a file in the form of the container runtime (CRI) for a pod's container, and its
`PortForward` an address where a pod's port really is. It answers both as a kubelet does, through
the API server. Source: kwok's documentation, "Logs" and "PortForward".
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cluster.control_plane import Cluster

VERSION = "kwok.x-k8s.io/v1alpha1"


class Printed:
    """The log of one container: `say` adds a line with the moment of now, or one that is given."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def say(self, *lines: str, at: str | None = None) -> None:
        with self.path.open("a") as file:
            for line in lines:
                stamp = at or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")
                file.write(f"{stamp} stdout F {line}\n")


def prints(cluster: Cluster, pod: Mapping[str, Any], now: Path, before: Path | None = None) -> None:
    """Let the containers of a pod print what is in a file; before a crash, another one."""
    log: dict[str, Any] = {"logsFile": str(now), "follow": True}
    if before is not None:
        log["previousLogsFile"] = str(before)
    _put(cluster, "Logs", "logs", pod, {"logs": [log]})


def takes(cluster: Cluster, pod: Mapping[str, Any], ports: Mapping[int, int]) -> None:
    """Let ports of a pod be ports of this machine."""
    forwards = [
        {"ports": [port], "target": {"address": "127.0.0.1", "port": real}}
        for port, real in ports.items()
    ]
    _put(cluster, "PortForward", "portforwards", pod, {"forwards": forwards})


def _put(
    cluster: Cluster, kind: str, plural: str, pod: Mapping[str, Any], spec: dict[str, Any]
) -> None:
    name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
    thing = {
        "apiVersion": VERSION,
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
    path = f"/apis/{VERSION}/namespaces/{namespace}/{plural}/{name}"
    cluster.call("PATCH", f"{path}?fieldManager=test&force=true", thing, "apply")


def all_take(cluster: Cluster, namespace: str, ports: Mapping[int, int]) -> None:
    """Let ports of every pod of a namespace, also of those to come, be ports of this machine."""
    forwards = [
        {"ports": [port], "target": {"address": "127.0.0.1", "port": real}}
        for port, real in ports.items()
    ]
    thing = {
        "apiVersion": VERSION,
        "kind": "ClusterPortForward",
        "metadata": {"name": namespace},
        "spec": {"selector": {"matchNamespaces": [namespace]}, "forwards": forwards},
    }
    path = f"/apis/{VERSION}/clusterportforwards/{namespace}"
    cluster.call("PATCH", f"{path}?fieldManager=test&force=true", thing, "apply")
