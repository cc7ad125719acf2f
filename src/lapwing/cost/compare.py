"""The same stack in three places: one machine, staging on spot pods, full production. Pure.

The machine is the smallest E2 machine that holds every service twice (both slots of a rollout) and
one GiB for the system, the agent and the proxy. A resource that states no memory is taken for one
GiB there. Staging is the environment that is declared on spot pods; where none is, it is production
with one replica of each service, on spot pods, in a project of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from lapwing.cost.autopilot import GIB
from lapwing.cost.book import HOURS, Book
from lapwing.cost.change import is_production, with_replicas, with_settings
from lapwing.cost.estimate import estimate
from lapwing.cost.lines import Estimate, Ledger, Place
from lapwing.stack.environment import Usage
from lapwing.stack.load import LoadedStack

SYSTEM_MEMORY = Decimal(1)
RESOURCE_MEMORY = Decimal(1)
DISK = Decimal(20)
"""GiB for the system, releases and logs."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine type: what it has and what it is billed for, in vCPU, and its memory in GiB."""

    name: str
    cpu: int
    billed: Decimal
    memory: Decimal


E2 = (
    Machine("e2-small", 2, Decimal("0.5"), Decimal(2)),
    Machine("e2-medium", 2, Decimal(1), Decimal(4)),
    *(Machine(f"e2-standard-{n}", n, Decimal(n), Decimal(4 * n)) for n in (2, 4, 8, 16, 32)),
)
"""The E2 family, the smallest first (Google Cloud, "E2 machine types")."""


def compare(stacks: Sequence[LoadedStack], book: Book) -> list[Estimate]:
    """The three estimates, as far as the stack has an environment in a cloud."""
    clouds = [s for s in stacks if s.settings.cloud is not None]
    if not clouds:
        return []
    production = next((s for s in clouds if is_production(s.environment)), clouds[0])
    return [
        one_machine(production, book),
        estimate([_staging(clouds, production)], book, "staging on spot"),
        estimate([production], book, "full production"),
    ]


def one_machine(loaded: LoadedStack, book: Book) -> Estimate:
    """What the whole stack costs on one machine in the region of an environment."""
    cloud = loaded.settings.cloud
    assert cloud is not None
    machine, note = _smallest(loaded)
    place = Place("one machine", f"{loaded.stack.stack}-machine", cloud.region)
    ledger = Ledger(book)
    for what, size in (("cpu", machine.billed), ("memory", machine.memory)):
        quantity = (size * HOURS, size * HOURS)
        ledger.add(place, "machine", f"{machine.name}: {what}", f"machine.{what}", quantity, note)
    stored = [r.storage for r in loaded.stack.resources.values() if r.storage is not None]
    disk = DISK + Decimal(sum(stored)) / GIB
    ledger.add(place, "machine", "Disk", "disk.balanced", (disk, disk))
    ledger.add(place, "machine", "Address", "machine.address", (HOURS, HOURS))
    usage = loaded.settings.usage
    if usage.sent is not None or usage.static is not None:
        sent = Decimal((usage.sent or 0) + (usage.static or 0)) / GIB
        ledger.add(place, "traffic", "Data to the internet", "internet.sent", (sent, sent))
    return Estimate("one machine", tuple(ledger.lines), notes=(note,))


def _smallest(loaded: LoadedStack) -> tuple[Machine, str]:
    services = [s for s in loaded.stack.services.values() if s.kind != "job"]
    cpu = sum((Decimal(str(s.resources.cpu or 0)) * s.replicas.min for s in services), Decimal(0))
    memory = SYSTEM_MEMORY
    for service in services:
        memory += 2 * Decimal(service.resources.memory or 0) / GIB * service.replicas.min
    for resource in loaded.stack.resources.values():
        asked = resource.resources
        cpu += Decimal(str(asked.cpu or 0))
        memory += Decimal(asked.memory) / GIB if asked.memory else RESOURCE_MEMORY
    fitting = (m for m in E2 if m.cpu >= cpu and m.memory >= memory)
    machine = next(fitting, None)
    asks = f"{cpu.normalize():f} vCPU and {memory.quantize(Decimal('0.1'))} GiB with both slots"
    if machine is None:
        return E2[-1], f"the stack asks for {asks}, more than the largest E2 machine has"
    return machine, f"the smallest E2 machine for {asks}; one machine is one point of failure"


def _staging(clouds: Sequence[LoadedStack], production: LoadedStack) -> LoadedStack:
    declared = next(
        (s for s in clouds if s.settings.spot and not is_production(s.environment)), None
    )
    if declared is not None:
        return declared
    assert production.settings.cloud is not None
    cloud = production.settings.cloud.model_copy(update={"project": "staging"})
    return with_settings(
        with_replicas(production, 1, 1), spot=True, cloud=cloud, usage=Usage(), budget=None
    )
