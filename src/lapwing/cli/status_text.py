"""The text of `lapwing status`: services, jobs, resources, the rollout in progress, and usage."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from lapwing.cli.context import Context

if TYPE_CHECKING:
    from lapwing.desired.history import Entry
    from lapwing.observed.status import BackupStatus, ScheduleStatus, ServiceStatus, Status
    from lapwing.observed.usage import Summary
    from lapwing.targets.base import StatusReport

PAUSED = {"holding": "paused", "held": "paused"}
"""State names in text output that differ from those in files and JSON."""
FAILURES = {
    "failed": (
        "was rejected",
        "It received no requests.",
    ),
    "rolled-back": ("was rolled back", "It receives no requests any more."),
    "aborted": ("was aborted", ""),
    "superseded": ("was superseded", "`lapwing history -e {environment}` shows the newer one."),
}
AFTER_RESTORE = (
    "The environment stays stopped, and clients get the maintenance page. Correct the problem and "
    "run `lapwing deploy -e {environment}`, or restore another backup."
)
"""The hint instead, if services do not start on restored data."""


def show_status(context: Context, report: StatusReport) -> None:
    """Print what runs in an environment."""
    printer, found = context.printer, report.status
    where = found.url or (f"run `{report.open_hint}` to reach it" if report.open_hint else "")
    state = where if report.running else "stopping" if found.is_stopping else "not running"
    printer.data(f"{found.stack}/{found.environment}  {state}")
    if report.agent_running is False and report.running:
        printer.say(
            "The agent is not running: a replica that crashes is not restarted. Run `lapwing agent "
            "start`; running replicas are not touched.",
            style="yellow",
        )
    if report.envoy_running is False and report.running:
        log = context.settings.logs / "envoy.log"
        printer.data(f"Envoy is not running: no request reaches a service. Its log is {log}.")
    _show_parts(context, found)
    if found.stopping:
        printer.data("")
        names = (f"{name} (up to {_duration(left)})" for name, left in found.stopping.items())
        printer.data(f"Stopping: {', '.join(names)}")
    _show_rollout(context, found)
    if found.restore is not None:
        printer.data("")
        printer.data(
            f"A restore of {found.restore.name} from backup {found.restore.backup} is in progress; "
            "clients get the maintenance page."
        )
    elif found.maintenance is not None:
        printer.data("")
        printer.data(
            f"Maintenance since {found.maintenance.since} ({found.maintenance.actor}): clients get "
            f"the maintenance page. Run `lapwing maintenance off -e {found.environment}` to end it."
        )
    if found.problem is not None:
        printer.data("")
        printer.data(f"Problem: {found.problem}")
    if found.log_problem is not None:
        printer.data("")
        printer.data(f"Warning: {found.log_problem}")
    if report.last_failure is not None:
        printer.data("")
        printer.data(_last_failure(report.last_failure, found.environment))
    for text in found.advice:
        printer.data("")
        printer.data(f"Advice: {text}")


def _show_parts(context: Context, found: Status) -> None:
    """Print the services, scheduled jobs, resources and backups of an environment."""
    printer = context.printer
    if found.services:
        printer.data("")
        rows = [_service_row(s) for s in found.services]
        printer.table(("SERVICE", "PHASE", "ACTIVE", "READY", "RELEASE", "IDLE"), rows)
        _show_scaling(context, found.services)
        _show_exits(context, found.services)
    scheduled = [(s.name, s.schedule) for s in found.services if s.schedule is not None]
    if scheduled:
        printer.data("")
        rows = [(name, *_schedule_row(schedule)) for name, schedule in scheduled]
        printer.table(("JOB", "SCHEDULE", "LAST RUN", "OUTCOME", "NEXT RUN"), rows)
    if found.resources:
        printer.data("")
        states = {True: "running", False: "stopped", None: "-"}
        printer.table(
            ("RESOURCE", "KIND", "PROVIDER", "STATE"),
            [(r.name, r.kind, r.provider, states[r.running]) for r in found.resources],
        )
        for resource in filter(lambda r: r.warning, found.resources):
            printer.data(f"{resource.name}: {resource.warning}.")
    if found.backup is not None:
        printer.data("")
        for text in _backup_lines(found.backup, found.environment):
            printer.data(text)


def _show_rollout(context: Context, found: Status) -> None:
    """Print the deployment in progress."""
    rollout = found.rollout
    if rollout is None:
        return
    context.printer.data("")
    services = ", ".join(rollout.services)
    state = PAUSED.get(rollout.state, rollout.state)
    context.printer.data(f"Deployment {rollout.commit[:12]}: {state}, {services}")
    if rollout.state == "holding":
        preview = f"Preview: {rollout.preview}. " if rollout.preview else ""
        name = found.environment
        context.printer.data(
            f"  {preview}Run `lapwing promote -e {name}` or `lapwing abort -e {name}`."
        )


def _show_scaling(context: Context, services: Sequence[ServiceStatus]) -> None:
    """Print how many replicas autoscaled services should have, and why."""
    shown = [(s.name, s.scaling) for s in services if s.scaling]
    if shown:
        context.printer.data("")
    for name, scaling in shown:
        context.printer.data(
            f"Autoscaling of {name}: {scaling.wanted} wanted ({scaling.min} to {scaling.max}): "
            f"{scaling.reason}"
        )


def _show_exits(context: Context, services: Sequence[ServiceStatus]) -> None:
    """Print how replicas ended that were restarted."""
    for service in services:
        if service.active and service.active.last_exit:
            context.printer.data("")
            context.printer.data(f"Last exit of {service.name}: {service.active.last_exit}")


def _last_failure(failure: Entry, environment: str) -> str:
    what, _ = FAILURES[failure.outcome]
    reason = (failure.reason or f"`lapwing history -e {environment}` shows it").splitlines()[0]
    return f"Last deployment {failure.commit[:12]} {what}: {reason}"


def _service_row(service: ServiceStatus) -> tuple[str, ...]:
    active, idle = service.active, service.idle
    waiting = "-"
    if idle is not None:
        waiting = f"{idle.slot} {idle.release}"
        if idle.warm_for is not None:
            waiting += f" (warm for {_duration(idle.warm_for)})"
    if service.draining:
        waiting += f", {service.draining} draining"
    restarts = ""
    if active and active.restarts:
        restarts = f" ({active.restarts} restart{'s' if active.restarts > 1 else ''})"
    return (
        service.name,
        PAUSED.get(service.phase, service.phase) + restarts,
        active.slot if active else "-",
        f"{active.ready}/{active.replicas}" if active else "-",
        active.release if active else "-",
        waiting,
    )


def _schedule_row(schedule: ScheduleStatus) -> tuple[str, ...]:
    last, zone = schedule.last, "" if schedule.timezone == "UTC" else f" {schedule.timezone}"
    outcome = "-"
    if schedule.running_since is not None:
        outcome = f"running for {_duration(time.time() - schedule.running_since)}"
    elif last is not None:
        outcome = last.outcome + (f" ({last.reason})" if last.reason else "")
    began = schedule.running_since
    if began is None and last is not None:
        began = last.began or last.due
    return (f"{schedule.cron}{zone}", _moment(began), outcome, _moment(schedule.next))


def _backup_lines(backup: BackupStatus, environment: str) -> Iterator[str]:
    if backup.missing is not None:
        yield f"Backups: {backup.missing}"
    elif backup.created is None:
        yield "Backups: none yet"
    else:
        age, size = _duration(time.time() - backup.created), backup.bytes / 2**20
        yield f"Backups: newest {backup.newest}, {age} old, {size:.1f} MiB; {backup.count} kept"
    for part in backup.left_out:
        yield f"  NOT backed up: {part.name}, {part.reason}"
    schedule = backup.schedule
    if schedule is not None:
        if schedule.next:
            yield f"  next run: {_moment(schedule.next)}"
        if schedule.last is not None and schedule.last.outcome != "succeeded":
            at, reason = _moment(schedule.last.due), schedule.last.reason
            logs = f"`lapwing logs @backup -e {environment}`"
            yield f"  last run, {at}: {schedule.last.outcome}: {reason} ({logs})"


def _moment(seconds: float | None) -> str:
    """Format a Unix time to the minute, in UTC as everywhere."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds)) if seconds else "-"


def show_used(context: Context, used: Mapping[str, Summary]) -> None:
    """Print what replicas of each service used, if that was measured."""
    if not used:
        return
    rows = [
        (
            name,
            f"{s.cpu * 1000:.0f}m",
            f"{s.memory / 2**20:.0f}Mi",
            "-" if s.rate is None else f"{s.rate:.3g}",
            _duration(s.hours * 3600),
        )
        for name, s in used.items()
    ]
    context.printer.data("")
    header = ("USED PER REPLICA", "CPU P95", "MEMORY", "REQUESTS/S", "MEASURED FOR")
    context.printer.table(header, rows)


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"
