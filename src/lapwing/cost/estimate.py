"""Estimate the monthly bill of environments of a stack, from their inventory.

What belongs to a billing account (the credit for one cluster, free tiers of registry and secrets)
is counted once, for all environments together. The assumptions are in the notes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import date
from decimal import Decimal

from lapwing.cost.book import Book
from lapwing.cost.ledger import BillingScope, Estimate, Ledger
from lapwing.cost.machine import add_machine
from lapwing.cost.projects import (
    add_cluster,
    add_database,
    add_logs,
    add_network,
    add_shared,
    add_traffic,
)
from lapwing.cost.workloads import add_workloads
from lapwing.inventory.model import Environment, StackInventory
from lapwing.stack.load import LOCAL

SHARED = "shared"
"""The environment name of lines that all environments share."""


def estimate(
    found: StackInventory, book: Book, name: str | None = None, *, today: date | None = None
) -> Estimate:
    """Estimate the monthly cost of environments of one stack together, under a name."""
    ledger = Ledger(book, BillingScope("", "", ""))
    if today is not None:
        ledger = dataclasses.replace(ledger, today=today)
    for project in found.projects:
        members = found.members(project)
        for each in members:
            scoped = ledger.scoped(BillingScope(each.name, project.identity, project.region))
            add_workloads(scoped, each)
            add_traffic(scoped, each, project)
        for database in project.facts.databases:
            environment, part = project.owner(database.name)
            scope = BillingScope(environment, project.identity, project.region)
            add_database(ledger.scoped(scope), part, database)
        scoped = ledger.scoped(BillingScope(members[0].name, project.identity, project.region))
        add_cluster(scoped, project, members, credited=project is found.projects[0])
        add_network(scoped, project, members)
        add_logs(scoped, project, members)
    if found.shared is not None:
        shared = found.shared
        add_shared(ledger.scoped(BillingScope(SHARED, shared.identity, shared.region)), found)
    for each in found.environments:
        scoped = ledger.scoped(BillingScope(each.name, "", ""))
        if each.target == "machine" and each.name != LOCAL:
            add_machine(scoped, each)
        elif each.target == "kubernetes" and each.project is None and not _is_local(each):
            reason = "`cloud` is not set; a local kind or minikube cluster costs nothing"
            scoped.add_unpriced("cluster", "Cluster", "month", reason, Decimal(1))
    label = name or (found.environments[0].name if len(found.environments) == 1 else "all")
    clouds = [e for e in found.environments if e.project is not None]
    return Estimate(label, tuple(ledger.lines), tuple(_unstated(clouds)), tuple(_notes(found)))


def _is_local(environment: Environment) -> bool:
    return environment.name == LOCAL or environment.domain.rpartition(".")[2] == "localhost"


def _unstated(clouds: Iterable[Environment]) -> Iterable[str]:
    """Yield settings that are not set, so that they are not counted."""
    for each in clouds:
        keys = ["nat", "images", "deployments"]
        components = {p.component for p in each.facts.pods}
        if "edge" in components:
            keys += ["sent", "received"]
        if "static" in components:
            keys += ["static", "requests"]
        for key in keys:
            if getattr(each.usage, key) is None:
                yield f"{each.name}: usage.{key}"


def _notes(found: StackInventory) -> Iterable[str]:
    if not found.projects:
        return
    yield "List prices without tax, for a month of 730 hours. An estimate, not a quote."
    yield "The low amount is with the minimum number of replicas, the high one with the maximum."
    yield "The expected amount is their mean, unless a line states another assumption."
    credited = next((p for p in found.projects if p.facts.clusters), None)
    if credited is not None:
        yield (
            "Google's credit covers the fee of one cluster per billing account, here that of "
            f"{credited.identity}."
        )
    if any(e.scope == "network" for p in found.projects for e in p.facts.endpoints):
        yield "Data through private endpoints is not counted."
    if any(p.facts.budget is not None for p in found.projects):
        atlas = " and MongoDB Atlas" if any(p.facts.databases for p in found.projects) else ""
        yield (
            f"The budget alerts of Google Cloud leave out the shared project{atlas}; "
            "`lapwing cost --fail-on budget` does not."
        )
