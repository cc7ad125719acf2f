"""Volumes of a real node: folders of it, which its pods may write to."""

from __future__ import annotations

from typing import Any

from tests.cluster.node import Node

STORAGE_CLASS = "folders"
CAPACITY = "50Gi"


def add(node: Node, name: str, count: int = 1) -> None:
    """Add volumes of the default storage class; nothing else provisions or resizes them."""
    cluster = node.cluster
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
    for number in range(count):
        path = f"/run/volumes/{name}-{number}"
        node.run("mkdir", "--parents", "--mode=777", path)
        volume: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"generateName": "folder-"},
            "spec": {
                "capacity": {"storage": CAPACITY},
                "accessModes": ["ReadWriteOnce"],
                "storageClassName": STORAGE_CLASS,
                "hostPath": {"path": path},
            },
        }
        cluster.call("POST", "/api/v1/persistentvolumes", volume)
