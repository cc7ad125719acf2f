"""Cost alternatives: the same stack on other infrastructure.

`compare` estimates one machine of each provider, the cluster on AWS and Azure, staging on spot pods
and full production, from any stack: without a `cloud`, the cluster is assumed to run on Google
Cloud in us-central1. The machine is the cheapest x86 type that fits every service twice (both slots
of a rollout) and one GiB for the system, the agent and the proxy. A resource without a memory
request counts as one GiB there.
Staging is the environment with `spot`; without one, it is production with one replica of each
service, on spot pods, in its own project.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from lapwing.cost.book import Book, MachineType
from lapwing.cost.estimate import estimate
from lapwing.cost.ledger import BillingScope, Estimate, Ledger
from lapwing.cost.machine import add_type
from lapwing.cost.other_clouds import other_clouds
from lapwing.inventory.autopilot import GIB
from lapwing.inventory.read import read
from lapwing.stack.environment import Cloud, Usage
from lapwing.stack.load import LoadedStack
from lapwing.stack.model import Service

SYSTEM_MEMORY = Decimal(1)
RESOURCE_MEMORY = Decimal(1)
ASSUMED_CLOUD = Cloud(provider="gcp", region="us-central1")
ASSUMED_DOMAIN = "app.example.com"


def is_production(name: str) -> bool:
    """Return whether an environment is production, by its name."""
    return name in ("live", "main") or name.startswith("prod")


def with_settings(loaded: LoadedStack, **changes: Any) -> LoadedStack:
    """Return the stack with changed settings of its environment."""
    settings = loaded.settings.model_copy(update=changes)
    environments = {**loaded.stack.environments, loaded.environment: settings}
    stack = loaded.stack.model_copy(update={"environments": environments})
    return dataclasses.replace(loaded, stack=stack, settings=settings)


def with_replicas(loaded: LoadedStack, least: int, most: int) -> LoadedStack:
    """Return the stack with the same number of replicas for every service."""

    def resized(service: Service) -> Service:
        replicas = service.replicas.model_copy(update={"min": least, "max": most})
        return service.model_copy(update={"replicas": replicas})

    services = {name: resized(service) for name, service in loaded.stack.services.items()}
    return dataclasses.replace(loaded, stack=loaded.stack.model_copy(update={"services": services}))


def compare(stacks: Sequence[LoadedStack], book: Book) -> list[Estimate]:
    """Estimate one machine of each provider, other clouds, staging on spot, and production."""
    production = next((s for s in stacks if is_production(s.environment)), stacks[-1])
    if production.settings.cloud is None:
        clouds = [s for s in stacks if s.settings.cloud is not None]
        production = clouds[0] if clouds else _in_cloud(production)
    found = read([production])
    return [
        *one_machine(production, book),
        *other_clouds(found, book),
        estimate(read([_staging(stacks, production)]), book, "staging on spot"),
        estimate(found, book, "full production"),
    ]


def _in_cloud(loaded: LoadedStack) -> LoadedStack:
    """Move an environment to a cluster in the assumed cloud."""
    return with_settings(
        loaded,
        target="kubernetes",
        cloud=ASSUMED_CLOUD,
        machine=None,
        domain=loaded.settings.domain or ASSUMED_DOMAIN,
    )


def one_machine(loaded: LoadedStack, book: Book) -> list[Estimate]:
    """Estimate the whole stack on the cheapest fitting machine of each provider."""
    cpu, memory = _needed(loaded)
    vcpu = f"{cpu.normalize():f} vCPU" if cpu else "no CPU request"
    about = f"{vcpu} and {memory.quantize(Decimal('0.1'))} GiB with both slots"
    [environment] = read([with_settings(loaded, target="machine", cloud=None)]).environments
    found = []
    for provider, machine in _cheapest(book, cpu, memory, _region(loaded)).items():
        scope = BillingScope("one machine", f"{loaded.stack.stack}-machine", machine.locations[0])
        ledger = Ledger(book, scope)
        add_type(ledger, machine, environment)
        note = f"{machine.name} is the cheapest available x86 type of {provider} for {about}"
        found.append(Estimate(f"one machine ({provider})", tuple(ledger.lines), notes=(note,)))
    return found


def _region(loaded: LoadedStack) -> str:
    assert loaded.settings.cloud is not None
    return loaded.settings.cloud.region


def _cheapest(book: Book, cpu: Decimal, memory: Decimal, region: str) -> dict[str, MachineType]:
    """Return the cheapest type of each provider, of Google's those in the region."""
    fitting = [
        m
        for m in book.machines
        if m.available
        and not m.arm
        and m.cpu >= cpu
        and m.memory >= memory
        and (m.provider != "gcp" or region in m.locations)
    ]
    fitting.sort(key=lambda m: (m.price.low, m.name))
    cheapest = {m.provider: m for m in reversed(fitting)}
    return dict(sorted(cheapest.items(), key=lambda item: item[1].price.low))


def _needed(loaded: LoadedStack) -> tuple[Decimal, Decimal]:
    """Sum the requests: every service in both slots, and the resources; vCPU and GiB."""
    services = [s for s in loaded.stack.services.values() if s.kind != "job"]
    cpu = sum((Decimal(str(s.resources.cpu or 0)) * s.replicas.min for s in services), Decimal(0))
    memory = SYSTEM_MEMORY
    for service in services:
        memory += 2 * Decimal(service.resources.memory or 0) / GIB * service.replicas.min
    for resource in loaded.stack.resources.values():
        requests = resource.resources
        cpu += Decimal(str(requests.cpu or 0))
        memory += Decimal(requests.memory) / GIB if requests.memory else RESOURCE_MEMORY
    return cpu, memory


def _staging(stacks: Sequence[LoadedStack], production: LoadedStack) -> LoadedStack:
    for each in stacks:
        if each.settings.cloud and each.settings.spot and not is_production(each.environment):
            return each
    assert production.settings.cloud is not None
    cloud = production.settings.cloud.model_copy(update={"project": "staging"})
    return with_settings(
        with_replicas(production, 1, 1), spot=True, cloud=cloud, usage=Usage(), budget=None
    )
