"""Derives the status of an environment, as the CLI and the console show it, from its state."""

from __future__ import annotations

import time
from pathlib import Path

from msgspec import UNSET, UnsetType

from lapwing.agent import generations
from lapwing.agent.proxy.model import authority
from lapwing.agent.resources import kinds, servers
from lapwing.agent.rollout import State
from lapwing.agent.state import BACKUP, EnvironmentState, Generation
from lapwing.observed.status import (
    BackupStatus,
    MaintenanceStatus,
    Phase,
    ResourceStatus,
    RolloutStatus,
    ScheduleStatus,
    ServiceStatus,
    SlotStatus,
    Status,
)
from lapwing.plan.model import Document, Resource, Schedule, Service, preview_of


def status(state: EnvironmentState, port: int, problem: str | None) -> Status:
    """Return the present status of an environment."""
    running = state.document.services if state.document else {}
    incoming = state.rollout.document.services if state.rollout else {}
    document = state.document or (state.rollout.document if state.rollout else None)
    domain = document.domains[0] if document and document.domains else "localhost"
    return Status(
        stack=state.stack,
        environment=state.environment,
        url=f"https://{authority(domain, port)}",
        commit=state.commit,
        services=[
            _service(name, (running | incoming)[name], state) for name in sorted(running | incoming)
        ],
        resources=[
            ResourceStatus(
                name=name,
                kind=resource.kind,
                provider=resource.provider,
                running=name in state.resources
                if resource.provider in ("binary", "container")
                else None,
                warning=_warning(resource),
            )
            for name, resource in sorted(document.resources.items() if document else ())
        ],
        backup=_backup(state),
        rollout=_rollout(state, port),
        maintenance=_maintenance(document),
        problem=problem,
        running=bool(state.with_processes or state.resources or state.runs),
        stopping=_stopping(state),
        updated=time.time(),
    )


def _warning(resource: Resource) -> str | None:
    programs = kinds.PROGRAMS.get(resource.kind, ())
    open_to_all = {name for p in programs if p.login is None for name in p.names}
    name = Path(resource.program or "").name
    if name not in open_to_all:
        return None
    return f"{name} requires no password: every user of this machine can connect"


def _backup(state: EnvironmentState) -> BackupStatus | None:
    if state.document is None or state.document.backup is UNSET:
        return None
    return BackupStatus(schedule=_schedule(BACKUP, state.document.backup.schedule, state))


def _maintenance(document: Document | None) -> MaintenanceStatus | None:
    if document is None or not document.maintenance:
        return None
    return MaintenanceStatus(actor=document.maintenance.actor, since=document.maintenance.since)


def _stopping(state: EnvironmentState) -> dict[str, float]:
    """Return the seconds until each service and resource that is being stopped is killed."""
    now, found = time.monotonic(), dict[str, float]()
    for generation in state.stopping:
        left = max(0.0, (generation.deadline or now) - now)
        found[generation.service] = max(left, found.get(generation.service, 0.0))
    unneeded = () if state.rollout or state.with_processes or state.runs else state.resources
    kept = state.document.resources if state.document else {}
    found |= {
        name: run.spec.rollout.stop_grace
        for name, run in state.runs.items()
        if state.document is None or name not in state.document.services
    }
    return found | {name: servers.STOP_GRACE_S for name in unneeded if name not in kept}


def phase(spec: Service, active: Generation | None, state: EnvironmentState) -> Phase:
    """Return the phase of a service: what its clients see, then what is in progress."""
    if spec.schedule is not UNSET:
        return "scheduled"
    if spec.kind == "job":
        return "done"
    if active is None:
        return "starting" if state.rollout is not None else "stopped"
    ready = sum(r.ready for r in active.replicas)
    if ready < len(active.replicas):
        return "crashing" if ready == 0 else "degraded"
    flight = state.rollout
    if flight is not None and flight.state is State.HOLDING:
        return "held" if active.service in flight.candidates else "running"
    return "running"


def _service(name: str, spec: Service, state: EnvironmentState) -> ServiceStatus:
    active = state.of(name, "active")
    idle = state.of(name, "candidate") or state.of(name, "warm")
    return ServiceStatus(
        name=name,
        kind=spec.kind,
        phase=phase(spec, active, state),
        route=spec.route,
        active=_slot(active),
        idle=_slot(idle),
        draining=sum(g.service == name and g.role == "draining" for g in state.generations),
        schedule=_schedule(name, spec.schedule, state),
    )


def _schedule(
    name: str, wanted: Schedule | UnsetType, state: EnvironmentState
) -> ScheduleStatus | None:
    if wanted is UNSET:
        return None
    found = state.schedules.get(name)
    return ScheduleStatus(
        cron=wanted.cron,
        timezone=wanted.timezone,
        next=(found.next or None) if found else None,
        running_since=found.run.began if found and found.run else None,
        last=found.last if found else None,
    )


def _slot(generation: Generation | None) -> SlotStatus | None:
    if generation is None:
        return None
    warm = (
        generation.role == "warm"
        and generation.deadline is not None
        and generations.is_usable(generation)
    )
    return SlotStatus(
        slot=generation.slot,
        release=generation.spec.release,
        revision=generation.spec.revision,
        replicas=len(generation.replicas),
        ready=sum(r.ready for r in generation.replicas),
        restarts=sum(r.restarts for r in generation.replicas),
        last_exit=next((r.last_exit for r in generation.replicas if r.restarts), None),
        pids=[r.pid for r in generation.replicas if r.pid is not None],
        warm_for=max(0.0, (generation.deadline or 0.0) - time.monotonic()) if warm else None,
    )


def _rollout(state: EnvironmentState, port: int) -> RolloutStatus | None:
    flight = state.rollout
    if flight is None:
        return None
    changed = sorted(n for n, v in flight.verdicts.items() if v != "keep")
    domains = flight.document.domains
    return RolloutStatus(
        commit=flight.commit,
        state=flight.state,
        services=changed,
        outcome=flight.outcome,
        reason=flight.reason,
        preview=f"https://{authority(preview_of(domains[0]), port)}" if domains else None,
    )
