"""Rules about the settings of pods: only on Kubernetes; what GKE Autopilot accepts.

`lapwing infra` makes Autopilot clusters, which choose their nodes: its admission webhook refuses
pods that select nodes by a label that it does not know, unless they tolerate a taint with the same
key. Then it creates nodes with that label and taint (workload separation).

Source: GKE documentation, "Configure workload separation in GKE"; messages of the constraint
`autogke-node-affinity-selector-limitation` in issues of rancher/dashboard (#10564) and
GoogleCloudPlatform/ai-on-gke (#983).
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.stack.environment import Environment
from lapwing.stack.model import Stack
from lapwing.stack.pods import NodeTerm, Pods
from lapwing.stack.release_rules import registry_violations
from lapwing.stack.source import KeyPath, Violation

REGIONS = tuple(
    f"{prefix}kubernetes.io/{key}"
    for prefix in ("topology.", "failure-domain.beta.")
    for key in ("region", "zone")
)
AUTOPILOT_LABELS = (*REGIONS, "kubernetes.io/os", "kubernetes.io/arch")
"""The labels of nodes that pods on Autopilot may select, besides those of `AUTOPILOT_PREFIXES`."""
AUTOPILOT_PREFIXES = ("cloud.google.com/", "sandbox.gke.io/")
NODE_POOL = "cloud.google.com/gke-nodepool"


def check_pods(stack: Stack, environment: Environment) -> Iterator[Violation]:
    """`pods` and `storage_class` are for Kubernetes; Autopilot accepts only some node labels."""
    found = [(at, pods) for at, pods in _settings(stack, environment) if pods is not None]
    if environment.target == "machine":
        hint = "Move it to an environment with `target: kubernetes`, or below its `services` or "
        hint += "`resources`."
        classes: list[KeyPath] = [()] if environment.storage_class else []
        classes += [("resources", n) for n, r in stack.resources.items() if r.storage_class]
        for at in classes:
            message = "`storage_class` is only for `target: kubernetes`."
            yield Violation(message, (*at, "storage_class"), hint, key=True)
        for at, _ in found:
            message = "`pods` is only for `target: kubernetes`."
            yield Violation(message, (*at, "pods"), hint, key=True)
    elif environment.cloud is not None:
        for at, pods in found:
            yield from _check_autopilot(pods, environment.pods, (*at, "pods"))


def check_registry_mirror(_: Stack, environment: Environment) -> Iterator[Violation]:
    """`registry_mirror` is for Kubernetes, and is a host and a folder."""
    key = "registry_mirror"
    if environment.registry_mirror is not None and environment.target == "machine":
        hint = "Set `registry-mirrors` in /etc/docker/daemon.json, or `image` of the resources."
        yield Violation(f"`{key}` is only for `target: kubernetes`.", (key,), hint, key=True)
    yield from registry_violations(environment.registry_mirror, key)


def _settings(stack: Stack, environment: Environment) -> Iterator[tuple[KeyPath, Pods | None]]:
    yield (), environment.pods
    for name, service in stack.services.items():
        yield ("services", name), service.pods
    for name, resource in stack.resources.items():
        yield ("resources", name), resource.pods


def _check_autopilot(pods: Pods, common: Pods | None, at: KeyPath) -> Iterator[Violation]:
    tolerations = pods.tolerations or (common.tolerations if common else [])
    separated = {toleration.key for toleration in tolerations}
    for key, where in _selected(pods):
        known = key in AUTOPILOT_LABELS or (key.startswith(AUTOPILOT_PREFIXES) and key != NODE_POOL)
        if not known and key not in separated:
            yield Violation(
                f"GKE Autopilot refuses pods that select nodes by the label `{key}`.",
                (*at, *where),
                "Remove it; or add a toleration with the same key and value, for which Autopilot "
                "creates nodes with this label and taint.",
            )


def _selected(pods: Pods) -> Iterator[tuple[str, KeyPath]]:
    """Yield each label of nodes that pods select, with its place below `pods`."""
    for key in pods.node_selector:
        yield key, ("node_selector", key)
    affinity = pods.affinity.node_affinity if pods.affinity else None
    if affinity is None:
        return
    at: KeyPath = ("affinity", "nodeAffinity")
    required = affinity.required_during_scheduling_ignored_during_execution
    place: KeyPath = (*at, "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    for index, term in enumerate(required.node_selector_terms if required else ()):
        yield from _of_term(term, (*place, index))
    place = (*at, "preferredDuringSchedulingIgnoredDuringExecution")
    preferred = affinity.preferred_during_scheduling_ignored_during_execution or ()
    for index, choice in enumerate(preferred):
        yield from _of_term(choice.preference, (*place, index, "preference"))


def _of_term(term: NodeTerm, at: KeyPath) -> Iterator[tuple[str, KeyPath]]:
    for index, requirement in enumerate(term.match_expressions or ()):
        yield requirement.key, (*at, "matchExpressions", index, "key")
