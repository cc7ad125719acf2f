"""Objects as the API server lists them, with what our decisions look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NAME = "app.kubernetes.io/name"
COMPONENT = "app.kubernetes.io/component"
HASH = "rollouts-pod-template-hash"


def rollout(name: str, active: str) -> dict[str, Any]:
    return {
        "kind": "Rollout",
        "metadata": {"name": name, "uid": f"rollout-{name}", "labels": {NAME: name}},
        "spec": {"replicas": 1},
        "status": {"blueGreen": {"activeSelector": active}},
    }


def replica_set(name: str, revision: int, hashed: str, of: str = "api") -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": f"set-{name}",
            "labels": {HASH: hashed},
            "annotations": {"rollout.argoproj.io/revision": str(revision)},
            "ownerReferences": [{"kind": "Rollout", "name": of, "uid": f"rollout-{of}"}],
        },
        "spec": {"replicas": 1},
    }


def pod(
    called: str,
    *,
    name: str | None = "api",
    component: str = "web",
    owner: Mapping[str, Any] | None = None,
    inits: Mapping[str, int] | None = None,
    ready: bool = True,
    leaving: bool = False,
    ports: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """A pod with a container `app`, and init containers that have ended with a status."""
    labels = {NAME: name, COMPONENT: component} if name else {}
    metadata: dict[str, Any] = {
        "name": called,
        "namespace": "shop",
        "uid": f"pod-{called}",
        "labels": labels,
    }
    if owner is not None:
        metadata["ownerReferences"] = [{"uid": owner["metadata"]["uid"]}]
    if leaving:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    spoken = [{"name": n, "containerPort": p} for n, p in (ports or {}).items()]
    first = [{"name": n} for n in inits or ()]
    ended = [
        {"name": n, "state": {"terminated": {"exitCode": c}}} for n, c in (inits or {}).items()
    ]
    return {
        "metadata": metadata,
        "spec": {"containers": [{"name": "app", "ports": spoken}], "initContainers": first},
        "status": {
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "initContainerStatuses": ended,
            "containerStatuses": [{"name": "app", "state": {"running": {}}, "restartCount": 0}],
        },
    }
