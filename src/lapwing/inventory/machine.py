"""Read the inventory of the document of an environment on a machine."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal

from msgspec import UNSET

from lapwing.inventory.model import (
    Backup,
    Endpoint,
    Flow,
    Inventory,
    Pods,
    Requests,
    Rollout,
    Route,
    Volume,
)
from lapwing.plan.model import Access, Document
from lapwing.plan.model import Rollout as Settings

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
            max=s.scale.max if s.scale else s.replicas,
            requests=Requests(_decimal(s.cpu), s.memory),
            images=(s.image,) if s.image else (),
            rollout=None if s.kind == "job" else _rollout(s.rollout),
            offline=s.migrates is not UNSET,
            schedule=None if s.schedule is UNSET else s.schedule.cron,
            volumes=tuple(Volume(volume, path) for volume, path in s.volumes.items()),
        )
        for name, s in services
    ]
    databases = [
        Pods(name, name, PROCESS, r.kind, 1, 1, Requests())
        for name, r in document.resources.items()
    ]
    every = document.backup.schedule.cron if document.backup else ""
    backups = [
        Backup(f"volume.{volume}", "Lapwing", every=every)
        for _, s in services
        for volume in s.volumes
    ]
    backups += [Backup(n, "Lapwing", assured=False, every=every) for n in document.resources]
    return Inventory(
        pods=(*replicas, *databases),
        backups=tuple(backups) if every else (),
        endpoints=tuple(Endpoint(domain, None, "network") for domain in document.domains),
        flows=tuple(Flow(name, need) for name, s in services for need in s.needs),
        routes=tuple(_routes(document)),
    )


def _routes(document: Document) -> Iterator[Route]:
    for name, service in document.services.items():
        limits = service.access or (document.edge.access if document.edge else None) or Access()
        if service.route:
            yield Route(service.route, name, limits.allow, limits.basic_auth is not None)


def _rollout(settings: Settings) -> Rollout:
    watched = settings.analysis
    return Rollout(
        smoke_tests=len(settings.smoke),
        hold=settings.hold,
        window_s=round(watched.window) if watched else 0,
        max_error_rate=_decimal(watched.max_error_rate if watched else None),
        max_p95_s=_decimal(watched.max_p95 if watched else None),
        keep_s=round(settings.keep_old),
    )


def _decimal(value: float | None) -> Decimal | None:
    return None if value is None else Decimal(str(value))
