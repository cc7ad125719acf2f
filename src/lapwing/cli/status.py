"""`lapwing status`: what runs and what is on its way.

Shows what the agent last wrote, corrected by what processes there are: an agent that has died, or
that cannot write on a full disk, must not make a replica look alive. Where no agent lives, the
answer says that nobody is watching.
"""

from __future__ import annotations

import time
from typing import Any

import click
import msgspec

from lapwing.cli import cluster as on_cluster
from lapwing.cli import target
from lapwing.cli.context import Context, environment_option, output_option
from lapwing.observed import usage
from lapwing.observed.status import ServiceStatus, SlotStatus, Status
from lapwing.observed.usage import Summary
from lapwing.targets.planned import Where


@click.command("status")
@environment_option
@on_cluster.context_option
@output_option
@click.pass_obj
def command(context: Context, environment: str, cluster: str | None) -> int:
    """Tell what runs and what is on its way.

    Exit status: 0 when every service runs as wanted, 1 when one does not.
    """
    where = target.where(context, environment)
    place = on_cluster.scope_of(context, environment)
    if place is not None:
        return _of_cluster(context, on_cluster.status(context, cluster, *place), where)
    found = target.present(context, where)
    if found is None:
        raise target.never_deployed(where)
    alive = target.agent_lives(context)
    found = check(found)
    used = _used(context, where)
    if context.for_programs:
        answer: dict[str, Any] = msgspec.to_builtins(found)
        answer["agent"] = {"running": alive}
        answer["used"] = {name: _as_data(summary) for name, summary in used.items()}
        context.printer.json(answer)
    else:
        _show(context, found, alive)
        _show_used(context, {s.name: used[s.name] for s in found.services if s.name in used})
    return 0 if _well(found) else 1


def _of_cluster(context: Context, found: Status | None, where: Where) -> int:
    if found is None:
        raise target.never_deployed(where)
    if context.for_programs:
        context.printer.json(msgspec.to_builtins(found))
    else:
        _show(context, found, alive=True)
    return 0 if _well(found) else 1


def check(found: Status) -> Status:
    """A status corrected by what processes there are."""
    services = [
        msgspec.structs.replace(
            s,
            active=_recount(s.active),
            idle=_recount(s.idle),
            phase=_phase(s, _recount(s.active)),
        )
        for s in found.services
    ]
    return msgspec.structs.replace(found, services=services)


def _recount(slot: SlotStatus | None) -> SlotStatus | None:
    if slot is None:
        return None
    from lapwing.agent.processes import started

    living = sum(started(pid) is not None for pid in slot.pids)
    return msgspec.structs.replace(slot, ready=min(slot.ready, living))


def _phase(service: ServiceStatus, active: SlotStatus | None) -> Any:
    if service.kind == "job" or active is None or active == service.active:
        return service.phase
    if active.ready == 0:
        return "stopped"
    return "degraded" if active.ready < active.replicas else service.phase


def _well(found: Status) -> bool:
    served = all(s.phase in ("running", "done", "held") for s in found.services)
    return found.problem is None and served and all(r.running is not False for r in found.resources)


def _show(context: Context, found: Status, alive: bool) -> None:
    printer = context.printer
    running = any(s.active for s in found.services)
    printer.data(f"{found.stack}/{found.environment}  {found.url if running else 'is not running'}")
    if not alive and running:
        printer.say(
            "The agent is not running: nobody restarts what crashes. `lapwing agent start` "
            "starts it; nothing that serves is touched.",
            style="yellow",
        )
    if found.services:
        printer.data("")
        rows = [_row(s) for s in found.services]
        printer.table(("SERVICE", "PHASE", "ACTIVE", "READY", "RELEASE", "IDLE"), rows)
    if found.resources:
        printer.data("")
        printer.table(
            ("RESOURCE", "KIND", "PROVIDER", "STATE"),
            [
                (
                    r.name,
                    r.kind,
                    r.provider,
                    {True: "running", False: "stopped", None: "-"}[r.running],
                )
                for r in found.resources
            ],
        )
    flight = found.rollout
    if flight is not None:
        printer.data("")
        printer.data(
            f"Deployment {flight.commit[:12]}: {flight.state}, {', '.join(flight.services)}"
        )
        if flight.state == "holding":
            printer.data(f"  Look at {flight.preview}, then `lapwing promote` or `lapwing abort`.")
    if found.problem is not None:
        printer.data("")
        printer.data(f"Problem: {found.problem}")


def _used(context: Context, where: Where) -> dict[str, Summary]:
    """What the agent has measured of each service."""
    read = usage.read(context.settings.environment(where.stack, where.environment))
    found = {name: usage.summary(service) for name, service in read.services.items()}
    return {name: summary for name, summary in found.items() if summary is not None}


def _as_data(used: Summary) -> dict[str, float | None]:
    return {
        "cpu": used.cpu,
        "memory": used.memory,
        "requests": used.rate,
        "requests_max": used.rate_max,
        "hours": used.hours,
    }


def _show_used(context: Context, used: dict[str, Summary]) -> None:
    if not used:
        return
    rows = [
        (
            name,
            f"{s.cpu * 1000:.0f}m",
            f"{s.memory / 2**20:.0f}Mi",
            "-" if s.rate is None else f"{s.rate:.3g}",
            _span(s.hours * 3600),
        )
        for name, s in used.items()
    ]
    context.printer.data("")
    context.printer.table(
        ("USED BY A REPLICA", "CPU P95", "MEMORY", "REQUESTS/S", "SEEN FOR"), rows
    )


def _row(service: ServiceStatus) -> tuple[str, ...]:
    active, idle = service.active, service.idle
    ready = f"{active.ready}/{active.replicas}" if active else "-"
    waiting = "-"
    if idle is not None:
        waiting = f"{idle.slot} {idle.release}"
        if idle.warm_for is not None:
            waiting += f" (warm for {_span(idle.warm_for)})"
    if service.draining:
        waiting += f", {service.draining} draining"
    restarts = f" ({active.restarts} restarts)" if active and active.restarts else ""
    return (
        service.name,
        service.phase + restarts,
        active.slot if active else "-",
        ready,
        active.release if active else "-",
        waiting,
    )


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def age(moment: float) -> str:
    """How long ago a Unix time was, in words."""
    return _span(max(0.0, time.time() - moment)) + " ago"
