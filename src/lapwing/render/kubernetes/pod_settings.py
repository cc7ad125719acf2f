"""Add the settings of pods in the stack file (`pods`), and those of users of the chart.

Every pod of an environment gets `extra_spec` and `metadata`: those of its services, jobs, tests,
databases, backups and edge. In a chart they are the values `podSpec` and `podMetadata`; those of
one service or resource are merged over them.
"""

from __future__ import annotations

from typing import Any

from lapwing.plan.names import PULL_SECRET
from lapwing.render.kubernetes.objects import ClusterEnvironment, labels, name
from lapwing.render.kubernetes.setting import MERGE, Extra, Setting, Tree, merged, text
from lapwing.stack.pods import Pods

SPOT = "cloud.google.com/gke-spot"
"""The label and taint of spot nodes of GKE."""


def extra_spec(
    cluster: ClusterEnvironment, path: str = "", own: Pods | None = None, *, spot: bool = False
) -> Extra:
    """Build the fields of a pod's spec that the stack file, or a user of the chart, adds.

    Every pod of an environment has them. `own` are those of a service or resource, `path` its place
    in the values; with `spot` the pod is placed on spot capacity, if the environment asks for it.
    Source: GKE documentation, Spot Pods.
    """
    about = "Additional fields of every pod: imagePullSecrets, nodeSelector, tolerations, affinity."
    everywhere = _spec(cluster, cluster.settings.pods)
    common = Setting("podSpec", everywhere, about)
    added = _spec(cluster, own)
    about = f"Additional fields of the pods of {path.rpartition('.')[2]}, merged over `podSpec`."
    if spot and cluster.settings.spot:
        if not added:
            path, about = "spot", "Additional fields of pods on spot nodes, merged over `podSpec`."
        taken = {"key": SPOT, "operator": "Equal", "value": "true", "effect": "NoSchedule"}
        tolerated = merged(everywhere, added).get("tolerations", [])
        selector_ = {**added.get("nodeSelector", {}), SPOT: "true"}
        added |= {"nodeSelector": selector_, "tolerations": [taken, *tolerated]}
    return Extra(Setting(f"{path}.podSpec", added, about), common) if added else Extra(common)


def _spec(cluster: ClusterEnvironment, pods: Pods | None) -> dict[str, Any]:
    """Return the fields of a pod's spec; its pull secrets replace those of its service account."""
    spec = dict(pods.spec) if pods else {}
    if "imagePullSecrets" in spec and cluster.has_pull_secret:
        made = text(name(PULL_SECRET), cluster.scopes)
        spec["imagePullSecrets"] = [*spec["imagePullSecrets"], {"name": made}]
    return spec


def metadata(
    cluster: ClusterEnvironment, part: str, component: str, path: str = "", own: Pods | None = None
) -> dict[str, Tree]:
    """Build the metadata of pods; `path` and `own` are as for `extra_spec`."""
    return {"labels": labels(cluster, part, component), MERGE: extra_metadata(cluster, path, own)}


def extra_metadata(cluster: ClusterEnvironment, path: str = "", own: Pods | None = None) -> Extra:
    """Build the metadata of pods that the stack file, or a user of the chart, adds."""
    everywhere = cluster.settings.pods.metadata if cluster.settings.pods else {}
    about = "Additional metadata of every pod, such as annotations."
    common = Setting("podMetadata", everywhere, about)
    if own is None or not own.metadata:
        return Extra(common)
    about = f"Additional metadata of the pods of {path.rpartition('.')[2]}, over `podMetadata`."
    return Extra(Setting(f"{path}.podMetadata", own.metadata, about), common)
