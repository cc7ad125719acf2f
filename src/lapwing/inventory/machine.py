"""Read the inventory of the document of an environment on a machine."""

from __future__ import annotations

from decimal import Decimal

from lapwing.inventory.model import Endpoint, Flow, Inventory, Pods, Requests
from lapwing.plan.model import Document

PROCESS = "Process"
"""The kind of a workload on a machine: replicas are processes or containers."""


def from_document(document: Document) -> Inventory:
    """Read the facts of a document: replicas, resources beside them, and who uses what."""
    services = document.services.items()
    replicas = [
        Pods(
            name=name,
            part=name,
            kind=PROCESS,
            component=s.kind,
            min=s.replicas,
            max=s.replicas,
            requests=Requests(None if s.cpu is None else Decimal(str(s.cpu)), s.memory),
            images=(s.image,) if s.image else (),
            second_slot_s=round(
                s.rollout.keep_old + (s.rollout.analysis.window if s.rollout.analysis else 0)
            ),
        )
        for name, s in services
    ]
    databases = [
        Pods(name, name, PROCESS, r.kind, 1, 1, Requests())
        for name, r in document.resources.items()
    ]
    return Inventory(
        pods=(*replicas, *databases),
        endpoints=tuple(Endpoint(domain, None, "network") for domain in document.domains),
        flows=tuple(Flow(name, need) for name, s in services for need in s.needs),
    )
