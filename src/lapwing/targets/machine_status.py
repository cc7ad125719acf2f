"""The status file of an environment on this machine, corrected by the processes that exist."""

from __future__ import annotations

import msgspec

from lapwing.observed.status import Phase, ServiceStatus, SlotStatus, Status


def correct(found: Status, *, agent_running: bool) -> Status:
    """Correct a status by the processes that exist.

    An agent that has died, or that cannot write on a full disk, must not make a replica look ready.
    Without any replica a service is crashing while an agent restarts them, and stopped without one.
    """
    services = []
    for service in found.services:
        active = _recount(service.active)
        phase = _phase(service, active, "crashing" if agent_running else "stopped")
        services.append(
            msgspec.structs.replace(
                service, active=active, idle=_recount(service.idle), phase=phase
            )
        )
    return msgspec.structs.replace(found, services=services)


def _recount(slot: SlotStatus | None) -> SlotStatus | None:
    if slot is None:
        return None
    from lapwing.agent.processes import started

    running = sum(started(pid) is not None for pid in slot.pids)
    return msgspec.structs.replace(slot, ready=min(slot.ready, running))


def _phase(service: ServiceStatus, active: SlotStatus | None, none_ready: Phase) -> Phase:
    if service.kind == "job" or active is None or active == service.active:
        return service.phase
    if active.ready == 0:
        return none_ready
    return "degraded" if active.ready < active.replicas else service.phase
