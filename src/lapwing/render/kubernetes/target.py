"""What is rendered: an environment of a stack, and the images of its services. Pure.

Names and labels of all objects are made here, so that a selector and the pods it means cannot
differ, and a chart can put the name of its release before each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lapwing.plan.names import COMPONENT, ENVIRONMENT, INSTANCE, MANAGED_BY, NAME, PART_OF
from lapwing.render.kubernetes.setting import Joined, Scope, Setting, Tree, join
from lapwing.stack.cloud import is_managed
from lapwing.stack.environment import Environment
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Resource, Service
from lapwing.stack.resource_reference import variable_of

PORT = 8080
"""The port of a container whose service names none."""
SCRATCH = 256 * 2**20
"""Bytes of `/tmp` of a container whose service names none."""
HPA_CPU = 0.7
"""The CPU use at which replicas are added where `replicas.cpu` is not stated."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object. `file` is the concern it belongs to, `wave` its place in the order in which
    objects are applied: a wave begins when what came before runs."""

    file: str
    wave: int
    tree: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    """An environment as it is rendered. `images` has one reference for each service."""

    loaded: LoadedStack
    images: Mapping[str, str]
    revision: str = ""
    hold: bool = False
    """Whether this deployment waits for `lapwing promote`, whatever the services say."""

    @property
    def environment(self) -> Environment:
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
        return {n: r for n, r in resources if not is_managed(r, self.environment)}

    @property
    def managed_resources(self) -> dict[str, Resource]:
        """The resources that somebody else runs; their URLs are secrets."""
        resources = self.loaded.stack.resources.items()
        return {n: r for n, r in resources if is_managed(r, self.environment)}

    @property
    def is_argo(self) -> bool:
        """Whether Argo CD applies it, and not Lapwing."""
        stated = self.environment.delivery
        return stated == "argo" if stated else self.environment.cloud is not None

    @property
    def has_rollouts(self) -> bool:
        """Whether Argo Rollouts releases it."""
        stated = self.environment.rollouts
        return self.is_argo if stated is None else stated

    @property
    def namespace(self) -> str:
        """The namespace of the environment."""
        return f"{self.loaded.stack.stack}-{self.loaded.environment}"

    @property
    def scopes(self) -> dict[Scope, str]:
        """What `lapwing render` puts in the place of what an installation decides."""
        return {
            Scope.PREFIX: self.loaded.stack.stack,
            Scope.NAMESPACE: self.namespace,
            Scope.MANAGER: "lapwing",
        }

    def image(self, service: str) -> Setting:
        """The image of a service, as a value of the chart."""
        return Setting(
            f"services.{service}.image", self.images[service], f"The image of {service}."
        )

    def variable(self, resource: str) -> str:
        """The variable that has the URL of a resource."""
        return self.loaded.stack.resources[resource].variable or variable_of(resource)


def name(*parts: str) -> Joined:
    """The name of an object: what all names begin with, then `parts`, with dashes."""
    return join(Scope.PREFIX, "".join(f"-{part}" for part in parts))


def selector(part: str) -> dict[str, Tree]:
    """The labels by which the pods of one service, resource or job are found, and no others."""
    return {NAME: part, INSTANCE: Scope.PREFIX}


def labels(target: Target, part: str, component: str) -> dict[str, Tree]:
    """All labels of an object."""
    return {
        **selector(part),
        COMPONENT: component,
        PART_OF: target.loaded.stack.stack,
        MANAGED_BY: Scope.MANAGER,
        ENVIRONMENT: target.loaded.environment,
    }


def meta(
    target: Target,
    called: Joined,
    part: str,
    component: str,
    annotations: Mapping[str, Tree] | None = None,
) -> dict[str, Tree]:
    """The metadata of an object of the namespace."""
    found: dict[str, Tree] = {
        "name": called,
        "namespace": Scope.NAMESPACE,
        "labels": labels(target, part, component),
    }
    return found | ({"annotations": dict(annotations)} if annotations else {})


def cores(value: float) -> str:
    """CPU as Kubernetes writes it."""
    milli = round(value * 1000)
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def size(value: int) -> str:
    """Bytes as Kubernetes writes them, in the largest unit that keeps them exact."""
    for unit, factor in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if value and value % factor == 0:
            return f"{value // factor}{unit}"
    return str(value)
