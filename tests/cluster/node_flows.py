"""Which connections are possible on a real node: each is tried from the network of a pod."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.cluster.node import CGROUPS, Node

CONNECT = """
import concurrent.futures, json, socket, sys
def connects(address):
    with socket.socket() as client:
        client.settimeout(5)
        return client.connect_ex(tuple(address)) == 0
targets = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(32) as pool:
    print(json.dumps(list(pool.map(connects, targets))))
"""


def pod_of(node: Node, namespace: str, label: str) -> dict[str, Any] | None:
    """A running pod with a label and an address."""
    query = f"labelSelector={label.replace('=', '%3D')}"
    found = node.cluster.call("GET", f"/api/v1/namespaces/{namespace}/pods?{query}")["items"]
    running = (p for p in found if "deletionTimestamp" not in p["metadata"])
    return next((p for p in running if p["status"].get("podIP")), None)


def connections(
    node: Node, sources: dict[str, dict[str, Any]], targets: Iterable[tuple[str, str, int]]
) -> set[tuple[str, str, int]]:
    """The targets (name, address, port) that each source (name, pod) connects to, except itself."""
    found = set()
    for source, pod in sources.items():
        others = [t for t in targets if t[0] != source]
        addresses = json.dumps([(address, port) for _, address, port in others])
        inside = ("nsenter", f"--target={_process(node, pod)}", "--net")
        command = (*inside, sys.executable, "-c", CONNECT, addresses)
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        is_open = json.loads(done.stdout)
        found |= {(source, t[0], t[2]) for t, o in zip(others, is_open, strict=True) if o}
    return found


def _process(node: Node, pod: dict[str, Any]) -> int:
    """A process of a pod, as this machine numbers it."""
    [group] = (CGROUPS / "memory" / node.group).rglob(f"pod{pod['metadata']['uid']}")
    files: Iterable[Path] = group.rglob("cgroup.procs")
    return next(int(line) for file in files for line in file.read_text().split())
