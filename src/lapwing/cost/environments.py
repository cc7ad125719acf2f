"""What is billed in an environment: pods, managed databases, projects and regions.

Environments with the same project share a cluster, and so its fee, its load balancer and its NAT.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from lapwing.cost import autopilot
from lapwing.cost.ledger import BillingScope
from lapwing.stack.environment import Usage
from lapwing.stack.load import LOCAL, LoadedStack
from lapwing.stack.model import Resource, Service

SHARED = "shared"
"""The environment name of lines that all environments share."""


@dataclass(frozen=True, slots=True)
class Pods:
    """Equal pods: `low` to `high` of them.

    `warm` is for how many hours of a rollout both slots run; 0 for pods that are not released.
    """

    name: str
    low: int
    high: int
    pod: autopilot.Pod
    spot: bool = False
    warm: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class CloudEnvironment:
    """One environment in a cloud."""

    loaded: LoadedStack
    scope: BillingScope
    shared: BillingScope
    pods: tuple[Pods, ...]

    @property
    def name(self) -> str:
        """The name of the environment."""
        return self.loaded.environment

    @property
    def usage(self) -> Usage:
        """The assumed monthly usage."""
        return self.loaded.settings.usage

    @property
    def routed(self) -> list[Service]:
        """The services with a route."""
        return [s for s in self.loaded.stack.services.values() if s.route is not None]

    @property
    def managed(self) -> dict[str, Resource]:
        """The managed databases: MongoDB, by Atlas."""
        return {n: r for n, r in self.loaded.stack.resources.items() if r.kind == "mongodb"}

    @property
    def secrets(self) -> set[str]:
        """The secrets of services, and the URL of each managed database."""
        named = {s for service in self.loaded.stack.services.values() for s in service.secret_names}
        return named | {f"url of {name}" for name in self.managed}


def cloud_environments(stacks: Iterable[LoadedStack]) -> list[CloudEnvironment]:
    """Return the environments in a cloud."""
    return [_cloud_environment(loaded) for loaded in stacks if loaded.settings.cloud is not None]


def machines(stacks: Iterable[LoadedStack]) -> list[LoadedStack]:
    """Return the environments on a machine other than `local`."""
    return [s for s in stacks if s.settings.target == "machine" and s.environment != LOCAL]


def clusters_without_cloud(stacks: Iterable[LoadedStack]) -> list[LoadedStack]:
    """Return the environments on a cluster without `cloud`."""
    return [s for s in stacks if s.settings.target == "kubernetes" and s.settings.cloud is None]


def project_of(loaded: LoadedStack) -> str:
    """Return the project id of an environment, from its settings."""
    cloud = loaded.settings.cloud
    given = cloud.project if cloud else None
    return given or f"{loaded.stack.stack}-{loaded.environment}"


def _cloud_environment(loaded: LoadedStack) -> CloudEnvironment:
    cloud = loaded.settings.cloud
    assert cloud is not None
    shared = cloud.shared_project or f"{loaded.stack.stack}-{SHARED}"
    return CloudEnvironment(
        loaded,
        BillingScope(loaded.environment, project_of(loaded), cloud.region),
        BillingScope(SHARED, shared, cloud.region),
        tuple(_pods(loaded)),
    )


def _pods(loaded: LoadedStack) -> Iterable[Pods]:
    settings = loaded.settings
    for name, service in loaded.stack.services.items():
        if service.kind == "job":
            continue
        analysis = service.rollout.analysis
        warm = service.rollout.keep_old + (analysis.window if analysis else 0)
        yield Pods(
            name,
            service.replicas.min,
            service.replicas.max or service.replicas.min,
            autopilot.fit(service.resources.cpu, service.resources.memory),
            settings.spot,
            Decimal(str(warm)) / 3600,
        )
    for name, resource in loaded.stack.resources.items():
        if resource.kind != "mongodb":
            asked = resource.resources
            yield Pods(name, 1, 1, autopilot.fit(asked.cpu, asked.memory))
    if settings.overhead.cpu is not None or settings.overhead.memory is not None:
        asked = settings.overhead
        yield Pods("overhead", 1, 1, autopilot.fit(asked.cpu, asked.memory))
