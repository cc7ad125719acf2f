"""The inventory: what the environments of a stack consist of.

    StackInventory
      environments   facts of the rendered Kubernetes objects, or of the plan of a machine
      projects       facts of the rendered Terraform roots: one cloud project each

Estimates and reviews read it instead of the stack file, so that they state what is rendered.
`kubernetes.py`, `terraform.py` and `machine.py` fill it, `read.py` renders and combines.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from lapwing.inventory import autopilot
from lapwing.inventory.images import BuiltImage
from lapwing.stack.environment import Usage
from lapwing.stack.fields import ComputeResources


@dataclass(frozen=True, slots=True)
class Requests:
    """What one pod requests: CPU in cores, memory and node disk in bytes. None is no request."""

    cpu: Decimal | None = None
    memory: int | None = None
    ephemeral_storage: int | None = None


@dataclass(frozen=True, slots=True)
class Rollout:
    """A blue-green rollout: the checks before and after the switch. Times are in seconds."""

    smoke_tests: int = 0
    hold: bool = False
    """Whether it pauses before the switch until a person promotes it."""
    window_s: int = 0
    """How long the analysis observes the traffic; 0 without one."""
    max_error_rate: Decimal | None = None
    max_p95_s: Decimal | None = None
    keep_s: int = 0
    """How long the old slot keeps running after the analysis."""


@dataclass(frozen=True, slots=True)
class Volume:
    """A folder of a machine whose files outlive the replicas of a service."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Pods:
    """Equal pods of one workload: `min` to `max` of them, for jobs those of one run."""

    name: str
    part: str
    """The service or resource, or `edge`."""
    kind: str
    """The kind of the workload: Deployment, Rollout, StatefulSet, Job (also of a CronJob)."""
    component: str
    """`web`, `static`, `worker`, `job`, `edge`, or the kind of a database."""
    min: int
    max: int
    requests: Requests
    images: tuple[str, ...] = ()
    spot: bool = False
    rollout: Rollout | None = None
    """How it is released blue-green; None for a rolling update, and for what is not released."""
    spread: bool = False
    """Whether the scheduler spreads the pods over zones."""
    offline: bool = False
    """Whether it is a migration that stops the services which use its database."""
    deadline_s: int | None = None
    """The time limit of a job."""
    schedule: str | None = None
    """When a job runs, as for cron; None for one that runs at each deployment."""
    scratch: int = 0
    """The bytes of the volumes that exist as long as its pods."""
    kept_s: int = 0
    """For how long the pods of a job, and those volumes, exist after it has ended."""
    volumes: tuple[Volume, ...] = ()
    uses: tuple[str, ...] = ()
    """The databases outside of the cluster whose URL it gets."""

    @property
    def second_slot_s(self) -> int:
        """How long a rollout keeps the pods of the old slot beside the new ones, in seconds."""
        return self.rollout.window_s + self.rollout.keep_s if self.rollout else 0

    @property
    def billed(self) -> autopilot.Pod:
        """The requests of one pod as Autopilot raises them."""
        return autopilot.fit(self.requests.cpu, self.requests.memory)

    @property
    def storage(self) -> Decimal:
        """The node disk of one pod in GiB."""
        asked = self.requests.ephemeral_storage
        return autopilot.DEFAULT_STORAGE if asked is None else Decimal(asked) / autopilot.GIB


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
    cached: tuple[str, ...] = ()
    """Its backends behind a CDN."""
    log_sample: Decimal = Decimal(0)
    """The share of requests that it logs."""
    min_tls: str = ""
    """The oldest version of TLS that it accepts; empty if it is not known."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Something that accepts connections: a Service, or a private forwarding rule for all ports."""

    name: str
    port: int | None
    scope: Literal["cluster", "network"]
    """Reachable inside the cluster, or from the private network of the project."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Connections that a network policy allows from pods of a part: `to` a part or `internet`.

    From outside of the stack, `part` is a range of addresses, or `cluster` for any pod of the
    cluster; to a database outside of the cluster, `to` is its range, or `any` where only the ports
    are limited.
    """

    part: str
    to: str
    ports: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """The requests that the edge forwards to a part: those whose path has this prefix.

    With `networks`, only requests of clients in them; with `login`, only those with the name and
    password of a user.
    """

    prefix: str
    part: str
    networks: tuple[str, ...] = ()
    login: bool = False


@dataclass(frozen=True, slots=True)
class Subnet:
    """A subnet of the network of a project, with its secondary ranges by name."""

    name: str
    region: str
    cidr: str
    secondary: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Peering:
    """A range that is reserved for a network of Google, and peered with that of the project."""

    name: str
    cidr: str


@dataclass(frozen=True, slots=True)
class FirewallRule:
    """A rule of the firewall; `ports` are protocols with their ports, as in `tcp 443`."""

    name: str
    direction: Literal["ingress", "egress"]
    allows: bool
    ranges: tuple[str, ...]
    ports: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A role that an identity has: `ci`, `nodes` or the external one of a controller."""

    identity: str
    role: str


@dataclass(frozen=True, slots=True)
class Database:
    """A MongoDB that Atlas runs. `regions` maps each region to its number of nodes."""

    name: str
    tier: str
    max_tier: str
    disk: int
    regions: tuple[tuple[str, int], ...]
    backup: bool
    point_in_time: bool = False
    version: str = ""
    kept: tuple[str, ...] = ()
    """What its backup schedule keeps, as in `7 days`."""
    restore_days: int = 0
    """For how many days back it can be restored to any moment."""
    private: bool = False
    """Whether it has a private endpoint in the network of the project, and no public one."""


@dataclass(frozen=True, slots=True)
class ManagedService:
    """A database outside of the cluster: `managed: true`.

    In a cloud, Terraform creates it: Cloud SQL or Memorystore. Elsewhere the team does; its size is
    then what the stack file requests.
    """

    part: str
    kind: str
    cpu: int = 0
    memory: int = 0
    """In bytes."""
    storage: int = 0
    backup: bool = False
    product: str = ""
    """What Terraform creates, empty if it does not create it."""
    standby: bool = False
    """Whether it has a standby in another zone."""
    restore_days: int = 0
    """For how many days back it can be restored to any moment."""
    version: str = ""
    """The version that Terraform states, such as `8.4`."""
    private: bool = False
    """Whether it has an address in the peered range of the project, and no public one."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Kubernetes cluster. With `autopilot` it is billed per pod, not per node."""

    name: str
    region: str
    autopilot: bool
    private_nodes: bool = False
    control_plane: str = ""
    """The address range of the control plane."""


@dataclass(frozen=True, slots=True)
class Nat:
    """A NAT gateway, with the number of its external addresses."""

    name: str
    region: str
    addresses: int


@dataclass(frozen=True, slots=True)
class SecretRead:
    """A secret that a controller copies from Secret Manager into the cluster."""

    name: str
    every_s: int


@dataclass(frozen=True, slots=True)
class Backup:
    """A scheduled backup of a database, or of a volume (`volume.NAME`), and what makes it.

    `assured` is False for a database on a machine: its server is chosen at a deployment, and not
    every server can be backed up.
    """

    name: str
    by: str
    assured: bool = True
    every: str = ""
    """Its schedule, `@daily` or the fields of cron."""

    @property
    def schedule(self) -> str:
        """When it is made, in words."""
        return self.every.removeprefix("@") if self.every[:1] in ("", "@") else f"`{self.every}`"


@dataclass(frozen=True, slots=True)
class Inventory:
    """Everything that was found, each in the order of the source."""

    pods: tuple[Pods, ...] = ()
    disks: tuple[Disk, ...] = ()
    load_balancers: tuple[LoadBalancer, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    flows: tuple[Flow, ...] = ()
    closed: tuple[str, ...] = ()
    """The directions, `Ingress` and `Egress`, that a network policy denies for every pod."""
    pod_security: tuple[str, ...] = ()
    """The enforced Pod Security levels of namespaces."""
    routes: tuple[Route, ...] = ()
    subnets: tuple[Subnet, ...] = ()
    peerings: tuple[Peering, ...] = ()
    firewall: tuple[FirewallRule, ...] = ()
    grants: tuple[Grant, ...] = ()
    databases: tuple[Database, ...] = ()
    managed: tuple[ManagedService, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    nats: tuple[Nat, ...] = ()
    secrets: tuple[str, ...] = ()
    """Secrets of Secret Manager, with or without a version."""
    secret_reads: tuple[SecretRead, ...] = ()
    backups: tuple[Backup, ...] = ()
    controllers: tuple[str, ...] = ()
    """Programs that have to run in the cluster for these objects, such as Argo CD."""
    registries: tuple[str, ...] = ()
    """Registries of images, as HOST/FOLDER."""
    zones: tuple[str, ...] = ()
    """Domains of DNS zones."""
    budget: Decimal | None = None
    """The monthly budget alert of a project in US dollars."""

    def __add__(self, other: Inventory) -> Inventory:
        """Combine two inventories."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "budget"]
        budget = self.budget if other.budget is None else other.budget
        return Inventory(**{n: getattr(self, n) + getattr(other, n) for n in names}, budget=budget)


@dataclass(frozen=True, slots=True)
class HostMachine:
    """The server of an environment on a machine."""

    provider: str
    type: str
    location: str


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment. `project` is the folder of its project, None outside of a cloud."""

    name: str
    target: Literal["machine", "kubernetes"]
    facts: Inventory
    deployed_by: Literal["agent", "lapwing", "argocd"]
    has_root_application: bool = False
    """Whether one application of Argo CD creates those of all environments."""
    project: str | None = None
    built: tuple[BuiltImage, ...] = ()
    """The images that are built for a release of every service."""
    registry: str = ""
    """Where these images are pushed to, as HOST/FOLDER; empty if it is not set."""
    has_version_tags: bool = False
    """Whether `lapwing release` tags these images with the version."""
    domain: str = ""
    machine: HostMachine | None = None
    over_ssh: bool = False
    """Whether deployments reach its machine over SSH."""
    usage: Usage = dataclasses.field(default_factory=Usage)
    """The stated assumptions about traffic, images and deployments."""
    overhead: ComputeResources = dataclasses.field(default_factory=ComputeResources)
    """The stated requests of the controllers, all pods together."""
    budget: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """One cloud project, which `environments` share."""

    folder: str
    identity: str
    region: str
    environments: tuple[str, ...]
    facts: Inventory

    def owner(self, name: str) -> tuple[str, str]:
        """Split the name of a database into its environment and its resource."""
        found = [e for e in self.environments if name.startswith(f"{e}-")]
        environment = max(found, key=len)
        return environment, name.removeprefix(f"{environment}-")


@dataclass(frozen=True, slots=True)
class StackInventory:
    """The environments of a stack and the cloud projects they run in. `shared` is for all."""

    stack: str
    environments: tuple[Environment, ...]
    projects: tuple[Project, ...] = ()
    shared: Project | None = None

    def members(self, project: Project) -> tuple[Environment, ...]:
        """Return the environments of a project."""
        return tuple(e for e in self.environments if e.name in project.environments)
