"""What is rendered: an environment of a stack, and the images of its services.

Names and labels of all objects are built here, so that a selector and its pods cannot differ, and
a chart can put the name of its release in front of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lapwing.plan.names import (
    COMPONENT,
    ENVIRONMENT,
    INSTANCE,
    MANAGED_BY,
    NAME,
    PART_OF,
    PULL_SECRET,
)
from lapwing.render.kubernetes.setting import MERGE, Extra, Joined, Scope, Setting, Tree, join
from lapwing.stack import image_lock
from lapwing.stack.cloud import is_managed
from lapwing.stack.environment import Environment
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Resource, Service
from lapwing.stack.resource_reference import variable_of

PORT = 8080
"""The port of a container whose service names none."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object, with the file of its concern.

    `wave` is its position in the order in which objects are applied: a wave begins when the objects
    of the previous one are ready.
    """

    file: str
    wave: int
    tree: dict[str, Any]


@dataclass(frozen=True, slots=True)
class ClusterEnvironment:
    """An environment as it is rendered. `images` has one reference for each service."""

    loaded: LoadedStack
    images: Mapping[str, str]
    revision: str = ""
    hold: bool = False
    """Whether this deployment pauses until `lapwing promote`, whatever its services say."""
    revisions: Mapping[str, str] = field(default_factory=dict)
    """The revision of each service that differs from `revision`."""
    has_pull_secret: bool = False
    """Whether a Secret has the logins of the registries of the images."""
    digests: Mapping[str, str] = field(default_factory=dict)
    """The digests of third-party images, by reference: those of lapwing.lock."""

    @property
    def settings(self) -> Environment:
        """The settings of the environment."""
        return self.loaded.settings

    @property
    def services(self) -> Mapping[str, Service]:
        """The services, as they are in this environment."""
        return self.loaded.stack.services

    @property
    def own_resources(self) -> dict[str, Resource]:
        """The resources that run in the cluster."""
        resources = self.loaded.stack.resources.items()
        return {n: r for n, r in resources if not is_managed(r, self.settings)}

    @property
    def managed_resources(self) -> dict[str, Resource]:
        """The resources that run elsewhere; their URLs are secrets."""
        resources = self.loaded.stack.resources.items()
        return {n: r for n, r in resources if is_managed(r, self.settings)}

    @property
    def is_argo(self) -> bool:
        """Whether Argo CD applies the manifests, not Lapwing."""
        return self.settings.uses_argo_cd

    @property
    def has_rollouts(self) -> bool:
        """Whether Argo Rollouts switches releases."""
        return self.settings.uses_argo_rollouts

    @property
    def namespace(self) -> str:
        """The namespace of the environment."""
        return f"{self.loaded.stack.stack}-{self.loaded.environment}"

    @property
    def scopes(self) -> dict[Scope, str]:
        """The values that `lapwing render` uses for what an installation decides."""
        return {
            Scope.PREFIX: self.loaded.stack.stack,
            Scope.NAMESPACE: self.namespace,
            Scope.MANAGER: "lapwing",
        }

    @property
    def domain(self) -> Setting | str:
        """The host name of the stack; `localhost`, as in `lapwing open`, by default."""
        stated = self.settings.domain
        return Setting("domain", stated, "The host name of the stack.") if stated else "localhost"

    def image(self, service: str) -> Setting:
        """The image of a service, as a value of the chart."""
        return Setting(
            f"services.{service}.image", self.images[service], f"The image of {service}."
        )

    def pinned(self, image: str) -> str:
        """Return the reference by which a third-party image is pulled.

        It has the mirror of the environment, if any, and the digest, if lapwing.lock has it.
        """
        return image_lock.pinned(image, self.digests, self.settings.registry_mirror)

    def variable(self, resource: str) -> str:
        """The variable that holds the URL of a resource."""
        return self.loaded.stack.resources[resource].variable or variable_of(resource)


def name(*parts: str) -> Joined:
    """Build the name of an object: the prefix of all names, then `parts`, with dashes."""
    return join(Scope.PREFIX, *(f"-{part}" for part in parts))


def selector(part: str) -> dict[str, Tree]:
    """Build the labels that select the pods of one service, resource or job, and no others."""
    return {NAME: part, INSTANCE: Scope.PREFIX}


def labels(cluster: ClusterEnvironment, part: str, component: str) -> dict[str, Tree]:
    """Build all labels of an object."""
    return {
        **selector(part),
        COMPONENT: component,
        PART_OF: cluster.loaded.stack.stack,
        MANAGED_BY: Scope.MANAGER,
        ENVIRONMENT: cluster.loaded.environment,
    }


def new_object(
    cluster: ClusterEnvironment,
    api: str,
    kind: str,
    part: str,
    component: str,
    *,
    called: Joined | None = None,
    annotations: Mapping[str, Tree] | None = None,
    **body: Tree,
) -> dict[str, Tree]:
    """Build an object of the namespace. Its name is that of `part`, or `called`."""
    metadata: dict[str, Tree] = {
        "name": called or name(part),
        "namespace": Scope.NAMESPACE,
        "labels": labels(cluster, part, component),
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **body}


def service_account(
    cluster: ClusterEnvironment, part: str, component: str = "account"
) -> dict[str, Tree]:
    """Build the identity of pods, without a token: they do not use the cluster's API.

    The Secret with the logins of registries is named here and not in pods, so that a login that
    appears or disappears restarts nothing.
    """
    body: dict[str, Tree] = {"automountServiceAccountToken": False}
    if cluster.has_pull_secret and part in cluster.services:
        body["imagePullSecrets"] = [{"name": name(PULL_SECRET)}]
    account = new_object(cluster, "v1", "ServiceAccount", part, component, **body)
    if part in cluster.services:
        about = f"Additional metadata of the service account of {part}, such as annotations."
        path = f"services.{part}.serviceAccountMetadata"
        account["metadata"][MERGE] = Extra(Setting(path, {}, about))
    return account


def service(
    cluster: ClusterEnvironment,
    part: str,
    component: str,
    port: dict[str, Tree],
    *,
    headless: bool = False,
    **metadata: Any,
) -> dict[str, Tree]:
    """Build a Service in front of the pods of `part`; `metadata` is for `new_object`."""
    spec = {
        "type": "ClusterIP",
        **({"clusterIP": "None"} if headless else {}),
        "selector": selector(part),
        "ports": [port],
    }
    return new_object(cluster, "v1", "Service", part, component, spec=spec, **metadata)


def autoscaler(
    cluster: ClusterEnvironment,
    part: str,
    workload: tuple[str, str],
    *,
    least: Tree,
    most: Tree,
    cpu: Tree,
    window: int | None = None,
) -> dict[str, Tree]:
    """Build the autoscaler of a workload, which is given by its API version and kind.

    `cpu` is the use of requested CPU in per cent at which it adds pods, `window` the seconds for
    which fewer pods have to be enough.
    """
    api, kind = workload
    metric = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": cpu}}
    spec: dict[str, Tree] = {
        "scaleTargetRef": {"apiVersion": api, "kind": kind, "name": name(part)},
        "minReplicas": least,
        "maxReplicas": most,
        "metrics": [{"type": "Resource", "resource": metric}],
    }
    if window is not None:
        spec["behavior"] = {"scaleDown": {"stabilizationWindowSeconds": window}}
    return new_object(
        cluster, "autoscaling/v2", "HorizontalPodAutoscaler", part, "scaler", spec=spec
    )


def disruption_budget(cluster: ClusterEnvironment, part: str, component: str) -> dict[str, Tree]:
    """Build the rule that lets a drain of nodes evict one pod of `part` at a time."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": selector(part)}}
    return new_object(cluster, "policy/v1", "PodDisruptionBudget", part, component, spec=spec)
