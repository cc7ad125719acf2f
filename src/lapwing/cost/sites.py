"""What runs in an environment, as far as it is billed. Pure.

A site is one environment on a cluster: its pods (services, resources that run in the cluster, and
what runs beside them), its managed databases, its region and its projects. Environments of one
project share a cluster, and so its fee, its load balancer and its NAT.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from lapwing.cost import autopilot
from lapwing.cost.lines import Place
from lapwing.stack.environment import Usage
from lapwing.stack.load import LOCAL, LoadedStack
from lapwing.stack.model import Resource, Service

SHARED = "shared"
"""The name that stands for the environment in lines which all environments share."""
DEFAULT_TIER = "M10"


@dataclass(frozen=True, slots=True)
class Pods:
    """Equal pods: `low` to `high` of them. `warm` is for how many hours of a rollout the old slot
    runs beside the new one; 0 for what is not released."""

    name: str
    low: int
    high: int
    pod: autopilot.Pod
    spot: bool = False
    warm: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Site:
    """One environment on a cluster."""

    loaded: LoadedStack
    place: Place
    shared: Place
    pods: tuple[Pods, ...]

    @property
    def name(self) -> str:
        """The environment."""
        return self.loaded.environment

    @property
    def usage(self) -> Usage:
        """What a month is assumed to bring."""
        return self.loaded.settings.usage

    @property
    def routed(self) -> list[Service]:
        """The services that clients reach."""
        return [s for s in self.loaded.stack.services.values() if s.route is not None]

    @property
    def managed(self) -> dict[str, Resource]:
        """The databases that the cloud runs: MongoDB, by Atlas."""
        return {n: r for n, r in self.loaded.stack.resources.items() if r.kind == "mongodb"}

    @property
    def secrets(self) -> set[str]:
        """Names of secrets: those of services, and the URL of each managed database."""
        named = {s for service in self.loaded.stack.services.values() for s in service.secret_names}
        return named | {f"url of {name}" for name in self.managed}


def sites(stacks: Iterable[LoadedStack]) -> list[Site]:
    """The sites among environments of a stack; machines are none."""
    return [_site(loaded) for loaded in stacks if loaded.settings.cloud is not None]


def machines(stacks: Iterable[LoadedStack]) -> list[LoadedStack]:
    """The environments on a machine of its own; `local` is the developer's."""
    return [s for s in stacks if s.settings.target == "machine" and s.environment != LOCAL]


def homeless(stacks: Iterable[LoadedStack]) -> list[LoadedStack]:
    """The environments on a cluster that is in no cloud."""
    return [s for s in stacks if s.settings.target == "kubernetes" and s.settings.cloud is None]


def project_of(loaded: LoadedStack) -> str:
    """The project id of an environment."""
    cloud = loaded.settings.cloud
    given = cloud.project if cloud else None
    return given or f"{loaded.stack.stack}-{loaded.environment}"


def _site(loaded: LoadedStack) -> Site:
    cloud = loaded.settings.cloud
    assert cloud is not None
    shared = cloud.shared_project or f"{loaded.stack.stack}-{SHARED}"
    return Site(
        loaded,
        Place(loaded.environment, project_of(loaded), cloud.region),
        Place(SHARED, shared, cloud.region),
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
