"""The inventory: facts of rendered objects and resources, in one model.

Estimates, reviews and diagrams read it instead of the stack file, so that they state what is
rendered. `kubernetes.py` and `terraform.py` fill it; facts that neither has are left out.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal


@dataclass(frozen=True, slots=True)
class Requests:
    """What one pod requests: CPU in cores, memory and node disk in bytes. None is no request."""

    cpu: Decimal | None = None
    memory: int | None = None
    ephemeral_storage: int | None = None


@dataclass(frozen=True, slots=True)
class Pods:
    """Equal pods of one workload: `min` to `max` of them, for jobs those of one run."""

    name: str
    kind: str
    """The kind of the workload: Deployment, Rollout, StatefulSet, Job."""
    component: str
    """`web`, `static`, `worker`, `job`, `edge`, or the kind of a database."""
    min: int
    max: int
    requests: Requests
    spot: bool = False
    second_slot_s: int = 0
    """How long a rollout keeps the pods of the old slot beside the new ones, in seconds."""


@dataclass(frozen=True, slots=True)
class Disk:
    """Persistent volumes of one size: `count` of them."""

    name: str
    size: int
    count: int = 1


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """A load balancer, with the host names that it serves. `rules` are its forwarding rules."""

    name: str
    rules: int
    hosts: tuple[str, ...] = ()
    cdn: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Something that accepts connections: a Service, or a private forwarding rule for all ports."""

    name: str
    port: int | None
    scope: Literal["cluster", "network"]
    """Reachable inside the cluster, or from the private network of the project."""


@dataclass(frozen=True, slots=True)
class Database:
    """A database that a cloud runs. `regions` maps each region to its number of nodes."""

    name: str
    tier: str
    max_tier: str
    disk: int
    regions: tuple[tuple[str, int], ...]
    backup: bool


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Kubernetes cluster. With `autopilot` it is billed per pod, not per node."""

    name: str
    region: str
    autopilot: bool


@dataclass(frozen=True, slots=True)
class Nat:
    """A NAT gateway, with the number of its external addresses."""

    name: str
    region: str
    addresses: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything that was found, each in the order of the source."""

    pods: tuple[Pods, ...] = ()
    disks: tuple[Disk, ...] = ()
    load_balancers: tuple[LoadBalancer, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    databases: tuple[Database, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    nats: tuple[Nat, ...] = ()
    secrets: tuple[str, ...] = ()
    registries: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()
    """Domains of DNS zones."""

    def __add__(self, other: Inventory) -> Inventory:
        """Combine two inventories."""
        names = [field.name for field in dataclasses.fields(self)]
        return Inventory(**{n: getattr(self, n) + getattr(other, n) for n in names})
