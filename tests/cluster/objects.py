"""Objects as the renderer makes them, but small."""

from __future__ import annotations

from typing import Any

from lapwing.kubernetes.applyset import Scope
from lapwing.render.kubernetes.workloads import MAX_OLD_SLOTS


def namespace(scope: Scope) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": scope.namespace}}


def volume(scope: Scope, name: str, claim: str, **spec: Any) -> dict[str, Any]:
    """A PersistentVolume for a claim, which no provisioner of the tests would create."""
    given = {
        "accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "10Gi"},
        "hostPath": {"path": f"/nowhere/{claim}"},
        "claimRef": {"namespace": scope.namespace, "name": claim},
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {**given, **spec},
    }


def config(scope: Scope, name: str = "settings", **data: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": scope.namespace},
        "data": data,
    }


def template(image: str, **labels: str) -> dict[str, Any]:
    container = {
        "name": "app",
        "image": image,
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }
    return {"metadata": {"labels": labels}, "spec": {"containers": [container]}}


def workload(
    scope: Scope, name: str, image: str, *, replicas: int | None = 2, kind: str = "Deployment"
) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": name}
    spec: dict[str, Any] = {
        "selector": {"matchLabels": labels},
        "template": template(image, **labels),
    }
    if replicas is not None:
        spec["replicas"] = replicas
    if kind == "StatefulSet":
        spec["serviceName"] = name
    metadata = {"name": name, "namespace": scope.namespace, "labels": labels}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


def job(scope: Scope, name: str, image: str, wave: int = 0) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": scope.namespace,
        "annotations": {"argocd.argoproj.io/sync-wave": str(wave)},
    }
    pod = template(image)
    pod["spec"]["restartPolicy"] = "Never"
    spec = {"backoffLimit": 0, "template": pod}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}


def service(scope: Scope, name: str, app: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": scope.namespace},
        "spec": {
            "selector": {"app.kubernetes.io/name": app},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }


def rollout(scope: Scope, name: str, image: str, **strategy: Any) -> list[dict[str, Any]]:
    """A blue-green Rollout with its two Services."""
    made = workload(scope, name, image)
    made |= {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout"}
    made["spec"]["strategy"] = {
        "blueGreen": {
            "activeService": name,
            "previewService": f"{name}-preview",
            "scaleDownDelaySeconds": 600,
            "scaleDownDelayRevisionLimit": MAX_OLD_SLOTS,
            **strategy,
        }
    }
    return [service(scope, name, name), service(scope, f"{name}-preview", name), made]
