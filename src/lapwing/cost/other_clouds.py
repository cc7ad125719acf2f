"""Nodes that hold the pods of an environment, and the environment on EKS (AWS) or AKS (Azure).

This is for comparison only: Lapwing renders nothing for nodes or for these clouds.

EKS and AKS bill nodes. The node is the cheapest x86 type with at least 4 GiB for the requests of
all pods and controllers, of which at least two run. `low` is for the minimum number of replicas,
`high` for the maximum and a second slot of the largest service. The location is the one in Europe
or in the USA with recorded prices. What has no recorded price is an unpriced line, so that a total
is a lower bound; MongoDB Atlas costs the same as on Google Cloud.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from lapwing.cost.book import HOURS, Book, MachineType
from lapwing.cost.ledger import BillingScope, Estimate, Ledger, between
from lapwing.cost.machine import DISK
from lapwing.cost.projects import (
    CROSSES_ZONES,
    MIN_NODES,
    add_database,
    controller_requests,
)
from lapwing.inventory.autopilot import GIB
from lapwing.inventory.model import Environment, Pods, Project, StackInventory

USABLE = Decimal("0.85")
"""The assumed share of a node that the system leaves for pods."""
MIN_NODE_MEMORY = 4
SHARED_CORE = "e2-medium"
"""A type with two vCPU for short peaks only: GKE leaves 0.94 vCPU for pods."""
AZURE_DISK = 32
"""GiB of the only size of disk with a price."""
GB = Decimal(10**9)


@dataclass(frozen=True, slots=True)
class Provider:
    """A cloud with a managed Kubernetes: its key in the price book, and its priced locations."""

    key: str
    product: str
    europe: str
    elsewhere: str

    def location(self, region: str) -> str:
        """Return the location to compare a region of Google Cloud with."""
        return self.europe if region.startswith("europe-") else self.elsewhere


PROVIDERS = (
    Provider("aws", "EKS", "eu-central-1", "us-east-1"),
    Provider("azure", "AKS", "westeurope", "eastus"),
)


@dataclass(frozen=True, slots=True)
class Demand:
    """What all pods request together, low and high, and the largest pod: vCPU and GiB."""

    cpu: tuple[Decimal, Decimal]
    memory: tuple[Decimal, Decimal]
    largest: tuple[Decimal, Decimal]

    def nodes(self, machine: MachineType) -> tuple[int, int]:
        """Return how many nodes of a type are needed, low and high."""
        low, high = (
            max(MIN_NODES, _ceiling(cpu / machine.cpu / USABLE, memory / machine.memory / USABLE))
            for cpu, memory in zip(self.cpu, self.memory, strict=True)
        )
        return low, high


def other_clouds(found: StackInventory, book: Book) -> Iterator[Estimate]:
    """Estimate the one environment of an inventory on the cluster of each other cloud."""
    [environment], [project] = found.environments, found.projects
    demand = demand_of([environment])
    for provider in PROVIDERS:
        location = provider.location(project.region)
        ledger = Ledger(book, BillingScope(environment.name, provider.product, location))
        ledger.add("cluster", f"{provider.product} cluster", f"cluster.{provider.key}", HOURS)
        add_nodes(ledger, provider.key, demand)
        _add_disks(ledger, provider, environment)
        _add_network(ledger, provider, environment, project)
        _add_databases(ledger, environment, project)
        rest = "Secrets, DNS, registry and logs"
        ledger.add_unpriced("other", rest, "month", "no price is recorded")
        yield Estimate(
            f"cluster ({provider.key})",
            tuple(ledger.lines),
            notes=(f"{provider.product} in {location}, for comparison only",),
        )


def demand_of(environments: Sequence[Environment]) -> Demand:
    """Sum the requests of all pods, with a second slot of the largest service at the high end."""
    pods = [p for e in environments for p in e.facts.pods if p.kind != "Job"]
    sums = []
    for size, controllers in zip((_cpu, _memory), controller_requests(environments), strict=True):
        second = max((size(p) * p.max for p in pods if p.second_slot_s > 0), default=Decimal(0))
        low, _, high = controllers
        low += sum((size(p) * p.min for p in pods), Decimal(0))
        high += sum((size(p) * p.max for p in pods), second)
        sums.append((low, high))
    largest = (
        max(map(_cpu, pods), default=Decimal(0)),
        max(map(_memory, pods), default=Decimal(0)),
    )
    return Demand(sums[0], sums[1], largest)


def _cpu(pods: Pods) -> Decimal:
    """Return the vCPU of one pod: its request, or what Autopilot assigns without one."""
    return pods.billed.cpu if pods.requests.cpu is None else pods.requests.cpu


def _memory(pods: Pods) -> Decimal:
    asked = pods.requests.memory
    return pods.billed.memory if asked is None else Decimal(asked) / GIB


def _ceiling(*amounts: Decimal) -> int:
    return int(max(amounts).to_integral_value(ROUND_CEILING))


def _cheapest(book: Book, provider: str, location: str, demand: Demand) -> MachineType | None:
    """Return the type of which the needed nodes cost least, at the low end and then the high."""
    cpu, memory = demand.largest
    fitting = [
        m
        for m in book.machines
        if (m.provider, m.arm) == (provider, False)
        and location in m.locations
        and m.memory >= MIN_NODE_MEMORY
        and m.name != SHARED_CORE
        and (m.cpu * USABLE >= cpu and m.memory * USABLE >= memory)
    ]
    return min(
        fitting,
        key=lambda m: tuple(m.price.low * count for count in demand.nodes(m)),
        default=None,
    )


def add_nodes(ledger: Ledger, provider: str, demand: Demand) -> None:
    """Add the nodes with their disks."""
    machine = _cheapest(ledger.book, provider, ledger.scope.region, demand)
    if machine is None:
        note = "no type with a recorded price holds the largest pod"
        ledger.add_unpriced("nodes", "Nodes", "month", note)
        return
    nodes = demand.nodes(machine)
    about = f"{machine.cpu} vCPU, {machine.memory.normalize():f} GiB; {USABLE:.0%} for pods"
    count = between(Decimal(nodes[0]), Decimal(nodes[1]))
    ledger.add_price("nodes", f"Nodes: {machine.name}", machine.price, count, about)
    each = Decimal(1) if provider == "azure" else DISK
    low, expected, high = count
    disks = (low * each, expected * each, high * each)
    price = "disk.balanced" if provider == "gcp" else f"disk.{provider}"
    ledger.add("nodes", "Node disks", price, disks)


def _add_disks(ledger: Ledger, provider: Provider, environment: Environment) -> None:
    """Add the persistent volumes; Azure bills sizes of disks, of which one has a price."""
    for disk in environment.facts.disks:
        size, item = Decimal(disk.size) / GIB, f"{disk.name}: disk"
        if provider.key != "azure":
            ledger.add(disk.name, item, f"disk.{provider.key}", size * disk.count)
        elif size <= AZURE_DISK:
            ledger.add(disk.name, item, "disk.azure", Decimal(disk.count))
        else:
            note = f"above {AZURE_DISK} GiB; no price is recorded"
            ledger.add_unpriced(disk.name, item, "month", note, Decimal(disk.count))


def _add_network(
    ledger: Ledger, provider: Provider, environment: Environment, project: Project
) -> None:
    """Add the load balancer, the NAT gateway, their addresses, and the stated traffic."""
    key, usage = provider.key, environment.usage
    sent = Decimal((usage.sent or 0) + (usage.static or 0)) / GB
    received = Decimal(usage.received or 0) / GB
    addresses = sum(nat.addresses for nat in project.facts.nats)
    if project.facts.load_balancers or environment.facts.load_balancers:
        # An Application Load Balancer has an address in each of two zones.
        addresses += 2 if key == "aws" else 1
        ledger.add("network", "Load balancer", f"balancer.{key}", HOURS)
        data = f"balancer.{key}.{'capacity' if key == 'aws' else 'data'}"
        ledger.add("traffic", "Load balancer: data", data, sent + received)
    if project.facts.nats:
        ledger.add("network", "NAT gateway", f"nat.{key}", HOURS)
        if usage.nat is not None:
            ledger.add("network", "NAT: processed data", f"nat.{key}.data", Decimal(usage.nat) / GB)
    ledger.add("network", "IP addresses", f"address.{key}", addresses * HOURS)
    if sent:
        ledger.add("traffic", "Internet egress", f"sent.{key}", sent)
    if sent + received:
        crossing = (sent + received) * CROSSES_ZONES * 2
        ledger.add("traffic", "Data between zones", f"zone.{key}", crossing)


def _add_databases(ledger: Ledger, environment: Environment, project: Project) -> None:
    """Add MongoDB of Atlas at its prices on Google Cloud; other managed databases have no price."""
    scope = BillingScope(environment.name, ledger.scope.project, project.region)
    for database in project.facts.databases:
        _, part = project.owner(database.name)
        add_database(ledger.scoped(scope), part, database)
    for managed in environment.facts.managed:
        item = f"{managed.part}: managed {managed.kind}"
        ledger.add_unpriced(managed.part, item, "month", "no price is recorded")
