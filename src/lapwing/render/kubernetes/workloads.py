"""Services as workloads: pods, Services, autoscalers, disruption budgets.

With Argo Rollouts a web or static service is a `Rollout` with two Services: the active one, whose
selector the controller flips to the new ReplicaSet, and the preview one. Both keep their address;
the nodes send a new connection to the current pods, and the edge (see `edge.py`) keeps none for
longer than a second. Without Argo Rollouts, and for workers, which get no requests, it is a
`Deployment` whose rolling update never has fewer ready replicas than requested.

One Rollout is one service: Argo Rollouts has no concept of a stack. So on a cluster each service of
one deployment switches when its checks have passed, and rolls back separately; only a machine
switches all in one update.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.render.kubernetes import analysis, objects, pod
from lapwing.render.kubernetes.objects import (
    ClusterEnvironment,
    Manifest,
    name,
    new_object,
    selector,
)
from lapwing.render.kubernetes.setting import Joined, Setting, Tree
from lapwing.stack.model import DEFAULT_SCALE_DOWN_S, SCALE_UP_CPU, Service

FILE = "workloads.yaml"
WAVE = 5
HISTORY = 5
"""Old ReplicaSets that stay, without pods, for a fast rollback."""
MIN_SCALE_DOWN_DELAY_S = 30
"""How long the old slot stays at least, until every node uses the new one and the edge has closed
its connections. Source: Argo Rollouts documentation: scaleDownDelaySeconds is 30 or more."""
MAX_OLD_SLOTS = 2
"""How many old slots of a service have pods at most; Argo Rollouts removes the others at once, the
oldest first. One is not enough: a candidate that was replaced before its switch counts as an old
slot, a newer one than the release that has served until the switch, whose connections would be
closed at the switch. Source: argo-rollouts v1.9.2, rollout/bluegreen.go and replicaset.go."""


def manifests(cluster: ClusterEnvironment) -> Iterator[Manifest]:
    """Yield the objects of every service but jobs."""
    for part, service in cluster.services.items():
        if service.kind == "job":
            continue
        early: list[dict[str, Tree]] = []
        if service.migrate is None:  # Else the migration brings it, because it needs it first.
            early.append(objects.service_account(cluster, part))
        if service.kind in ("web", "static"):
            early.append(_service(cluster, part, service, name(part)))
            if cluster.has_rollouts:
                early.append(_service(cluster, part, service, name(part, "preview")))
        if is_rollout(cluster, service):
            early.extend(analysis.templates(cluster, part, service))
        yield from (Manifest(FILE, WAVE - 1, tree) for tree in early)
        yield Manifest(FILE, WAVE, _workload(cluster, part, service))
        if is_scaled(service):
            yield Manifest(FILE, WAVE + 1, _scaler(cluster, part, service))
        if service.replicas.min > 1:
            budget = objects.disruption_budget(cluster, part, service.kind)
            yield Manifest(FILE, WAVE - 1, budget)


def _service(
    cluster: ClusterEnvironment, part: str, service: Service, called: Joined
) -> dict[str, Tree]:
    port = {"name": "http", "port": pod.port(service), "targetPort": "http"}
    return objects.service(cluster, part, service.kind, port, called=called)


def is_rollout(cluster: ClusterEnvironment, service: Service) -> bool:
    """Report whether Argo Rollouts switches a service."""
    return cluster.has_rollouts and service.kind in ("web", "static")


def _workload(cluster: ClusterEnvironment, part: str, service: Service) -> dict[str, Tree]:
    rollout = is_rollout(cluster, service)
    spec: dict[str, Tree] = {}
    if not is_scaled(service):
        spec["replicas"] = _min_replicas(part, service)
    spec |= {
        "revisionHistoryLimit": HISTORY,
        "progressDeadlineSeconds": round(service.health.start_timeout) + 300,
        "selector": {"matchLabels": selector(part)},
        "template": pod.template(cluster, part, service, component=service.kind),
        "strategy": _blue_green(cluster, part, service) if rollout else pod.ROLLING_UPDATE,
    }
    return new_object(cluster, *_kind(rollout), part, service.kind, spec=spec)


def _kind(rollout: bool) -> tuple[str, str]:
    return ("argoproj.io/v1alpha1", "Rollout") if rollout else ("apps/v1", "Deployment")


def _blue_green(cluster: ClusterEnvironment, part: str, service: Service) -> dict[str, Tree]:
    """Build the strategy. Source: Argo Rollouts documentation, BlueGreen Deployment Strategy."""
    rollout = service.rollout
    spec: dict[str, Tree] = {
        "activeService": name(part),
        "previewService": name(part, "preview"),
        "autoPromotionEnabled": not (rollout.hold or cluster.hold),
        "scaleDownDelaySeconds": max(MIN_SCALE_DOWN_DELAY_S, round(rollout.keep_old)),
        "scaleDownDelayRevisionLimit": MAX_OLD_SLOTS,
        "abortScaleDownDelaySeconds": 30,
    }
    if rollout.smoke:
        spec["prePromotionAnalysis"] = {"templates": [{"templateName": name(part, "smoke")}]}
    if analysis.is_watched(service):
        spec["postPromotionAnalysis"] = {"templates": [{"templateName": name(part, "analysis")}]}
    return {"blueGreen": spec}


def is_scaled(service: Service) -> bool:
    """Report whether an autoscaler sets the replicas of a service."""
    return service.replicas.is_scaled and service.kind != "job"


def _min_replicas(part: str, service: Service) -> Setting:
    path = f"services.{part}.replicas.min"
    return Setting(path, service.replicas.min, "Minimum number of replicas.")


def _scaler(cluster: ClusterEnvironment, part: str, service: Service) -> dict[str, Tree]:
    path = f"services.{part}.replicas"
    used = round((service.replicas.cpu or SCALE_UP_CPU) * 100)
    window = round(service.replicas.scale_down_after)
    return objects.autoscaler(
        cluster, part, _kind(is_rollout(cluster, service)),
        least=_min_replicas(part, service),
        most=Setting(f"{path}.max", service.replicas.max, "Maximum number of replicas."),
        cpu=Setting(f"{path}.cpu", used, "CPU use in per cent at which replicas are added."),
        window=None if window == DEFAULT_SCALE_DOWN_S else window,
    )  # fmt: skip
