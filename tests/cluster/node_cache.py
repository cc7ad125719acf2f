"""Redis on a real node, with a volume that is a folder of the node."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster import node_images
from tests.cluster.control_plane import wait_until
from tests.cluster.node_shop import Shop

CACHE = "{{kind: redis, storage: {storage}, resources: {{cpu: 50m, memory: 64Mi}}}}"
POD = "shop-cache-0"
STORAGE_CLASS = "folders"


def prepare(shop: Shop, folder: Path) -> None:
    """Push the image of Redis, and add a volume that its user may write to.

    Nothing provisions or resizes volumes of the storage class.
    """
    node_images.push_redis(shop.registry, folder)
    cluster, path = shop.node.cluster, f"/run/volumes/{folder.name}"
    shop.node.run("mkdir", "--parents", "--mode=777", path)
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "allowVolumeExpansion": True,
    }
    at = f"/apis/storage.k8s.io/v1/storageclasses/{STORAGE_CLASS}"
    cluster.call("PATCH", f"{at}?fieldManager=test&force=true", storage_class, "apply")
    spec = {
        "capacity": {"storage": "10Gi"},
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": STORAGE_CLASS,
        "hostPath": {"path": path},
    }
    volume: dict[str, Any] = {"apiVersion": "v1", "kind": "PersistentVolume", "spec": spec}
    volume["metadata"] = {"generateName": "folder-"}
    cluster.call("POST", "/api/v1/persistentvolumes", volume)


def redis(shop: Shop, *command: str) -> str:
    """Send a command to the Redis of the stack, with its password."""
    password = base64.b64decode(shop.get("secrets/shop-cache")["data"]["password"]).decode()
    address: str | None = None

    def has_address() -> bool:
        nonlocal address
        pod = shop.get(f"pods/{POD}") or {}
        ready = {c["type"]: c["status"] for c in pod.get("status", {}).get("conditions", ())}
        address = pod.get("status", {}).get("podIP") if ready.get("Ready") == "True" else None
        return address is not None

    wait_until(has_address, "Redis is ready")
    call = ["redis-cli", "-h", str(address), *command]
    environ = {**shop.environ, "REDISCLI_AUTH": password}
    done = subprocess.run(call, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip()
