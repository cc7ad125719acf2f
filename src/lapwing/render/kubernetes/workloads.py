"""Services as workloads: what runs, what finds it, how many there are. Pure.

With Argo Rollouts a web or static service is a `Rollout` with two Services: the active one, whose
selector the controller flips to the new ReplicaSet, and the preview one. Both keep their address;
the nodes lead a new connection to the pods of the moment, and the edge (see `edge.py`) keeps none
for longer than a second. Without Argo Rollouts, and for workers, which nobody sends requests to, it
is a `Deployment` that never has less than it should.

One Rollout is one service: Argo Rollouts knows no stack. So on a cluster services of one deployment
switch one after the other, within seconds, and each goes back by itself; only a machine switches
all in one update.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.render.kubernetes import analysis, pod
from lapwing.render.kubernetes.setting import Joined, Setting, Tree
from lapwing.render.kubernetes.target import HPA_CPU, Manifest, Target, meta, name, selector
from lapwing.stack.model import Service

FILE = "workloads.yaml"
WAVE = 5
HISTORY = 5
"""Old ReplicaSets that stay, without pods, for a fast way back."""
SWITCH = 30
"""Seconds that the old slot stays at least, until every node has heard of the new one and the edge
has let its connections go. Source: Argo Rollouts documents: scaleDownDelaySeconds is 30 or more."""


def manifests(target: Target) -> Iterator[Manifest]:
    """The objects of every service but jobs."""
    for part, service in target.services.items():
        if service.kind == "job":
            continue
        if service.migrate is None:  # Else it is with the migration, which needs it first.
            yield Manifest(FILE, WAVE - 1, account(target, part))
        if service.kind in ("web", "static"):
            yield Manifest(FILE, WAVE - 1, _service(target, part, service, name(part)))
            if target.has_rollouts:
                preview = name(part, "preview")
                yield Manifest(FILE, WAVE - 1, _service(target, part, service, preview))
        yield from (Manifest(FILE, WAVE - 1, tree) for tree in _tests(target, part, service))
        yield Manifest(FILE, WAVE, _workload(target, part, service))
        if _is_scaled(service):
            yield Manifest(FILE, WAVE + 1, _scaler(target, part, service))
        if service.replicas.min > 1:
            yield Manifest(FILE, WAVE - 1, _budget(target, part, service))


def account(target: Target, part: str) -> dict[str, Tree]:
    """The identity of a service, without a token: it has nothing to ask of the cluster."""
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": meta(target, name(part), part, "account"),
        "automountServiceAccountToken": False,
    }


def _service(target: Target, part: str, service: Service, called: Joined) -> dict[str, Tree]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta(target, called, part, service.kind),
        "spec": {
            "type": "ClusterIP",
            "selector": selector(part),
            "ports": [{"name": "http", "port": pod.port(service), "targetPort": "http"}],
        },
    }


def is_rollout(target: Target, service: Service) -> bool:
    """Whether Argo Rollouts releases a service."""
    return target.has_rollouts and service.kind in ("web", "static")


def _tests(target: Target, part: str, service: Service) -> Iterator[dict[str, Tree]]:
    if is_rollout(target, service):
        yield from analysis.templates(target, part, service)


def _workload(target: Target, part: str, service: Service) -> dict[str, Tree]:
    rollout = is_rollout(target, service)
    spec: dict[str, Tree] = {}
    if not _is_scaled(service):
        spec["replicas"] = _least(part, service)
    spec |= {
        "revisionHistoryLimit": HISTORY,
        "progressDeadlineSeconds": round(service.health.start_timeout) + 300,
        "selector": {"matchLabels": selector(part)},
        "template": pod.template(target, part, service, component=service.kind),
        "strategy": _blue_green(target, part, service) if rollout else _rolling(),
    }
    return {
        "apiVersion": "argoproj.io/v1alpha1" if rollout else "apps/v1",
        "kind": "Rollout" if rollout else "Deployment",
        "metadata": meta(target, name(part), part, service.kind),
        "spec": spec,
    }


def _rolling() -> dict[str, Tree]:
    return {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}


def _blue_green(target: Target, part: str, service: Service) -> dict[str, Tree]:
    """Source: Argo Rollouts documents, BlueGreen Deployment Strategy."""
    rollout = service.rollout
    spec: dict[str, Tree] = {
        "activeService": name(part),
        "previewService": name(part, "preview"),
        "autoPromotionEnabled": not (rollout.hold or target.hold),
        "scaleDownDelaySeconds": max(SWITCH, round(rollout.keep_old)),
        "abortScaleDownDelaySeconds": 30,
    }
    if rollout.smoke:
        spec["prePromotionAnalysis"] = {"templates": [{"templateName": name(part, "smoke")}]}
    if analysis.is_watched(service):
        spec["postPromotionAnalysis"] = {"templates": [{"templateName": name(part, "analysis")}]}
    return {"blueGreen": spec}


def _is_scaled(service: Service) -> bool:
    highest = service.replicas.max
    return highest is not None and highest > service.replicas.min and service.kind != "job"


def _least(part: str, service: Service) -> Setting:
    return Setting(f"services.{part}.replicas.min", service.replicas.min, "The least replicas.")


def _scaler(target: Target, part: str, service: Service) -> dict[str, Tree]:
    rollout = is_rollout(target, service)
    used = round((service.replicas.cpu or HPA_CPU) * 100)
    path = f"services.{part}.replicas"
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": meta(target, name(part), part, "scaler"),
        "spec": {
            "scaleTargetRef": {
                "apiVersion": "argoproj.io/v1alpha1" if rollout else "apps/v1",
                "kind": "Rollout" if rollout else "Deployment",
                "name": name(part),
            },
            "minReplicas": _least(part, service),
            "maxReplicas": Setting(f"{path}.max", service.replicas.max, "The most replicas."),
            "metrics": [
                {
                    "type": "Resource",
                    "resource": {
                        "name": "cpu",
                        "target": {
                            "type": "Utilization",
                            "averageUtilization": Setting(
                                f"{path}.cpu", used, "Per cent of CPU at which more are added."
                            ),
                        },
                    },
                }
            ],
        },
    }


def _budget(target: Target, part: str, service: Service) -> dict[str, Tree]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": meta(target, name(part), part, service.kind),
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(part)}},
    }
