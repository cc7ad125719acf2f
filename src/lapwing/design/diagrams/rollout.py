"""The steps of one deployment, as the target carries them out.

On a machine all services switch in one update of the routes. On a cluster with Argo Rollouts each
service has a Rollout, which switches its Service alone; they are applied at the same time.
Otherwise a service is a Deployment, whose pods are replaced one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from lapwing.design.diagrams.model import Band, Box, Flow
from lapwing.design.subject import Subject
from lapwing.inventory.model import Pods, Rollout
from lapwing.stack.quantities import show_duration, show_fraction

Boxes = tuple[Box, ...]


def rollout(subject: Subject) -> Flow:
    """Draw the steps of one deployment."""
    if not subject.on_machine and not subject.blue_green:
        kind, bands = "rolling update", _rolling_update(subject)
    elif subject.on_machine:
        kind, bands = "blue-green rollout", _one_switch(subject)
    else:
        kind, bands = "blue-green rollout", _one_rollout_each(subject)
    title = f"{subject.stack}, {subject.environment.name}: {kind}"
    return Flow("bluegreen", title, bands)


def limits(wanted: Rollout) -> tuple[str, ...]:
    """Return the limits of the analysis: `more than 1% errors`, `p95 above 500ms`."""
    found = []
    if wanted.max_error_rate is not None:
        found.append(f"more than {show_fraction(float(wanted.max_error_rate))} errors")
    if wanted.max_p95_s is not None:
        found.append(f"p95 above {show_duration(float(wanted.max_p95_s))}")
    return tuple(f"or {limit}" if number else limit for number, limit in enumerate(found))


def _jobs(subject: Subject, *, late: bool) -> Boxes:
    """Return the box of the jobs before the services, or of those after them."""
    services = {p.part for p in subject.services}
    after = {f.part for f in subject.facts.flows if f.to in services}
    jobs = [p.part for p in subject.services if p.component == "job" and p.schedule is None]
    found = tuple(name for name in jobs if (name in after) == late)
    migrations = () if late else tuple(map(_migration, subject.migrations))
    return (*migrations, Box("Jobs", found)) if found else migrations


def _migration(pods: Pods) -> Box:
    name = pods.part.removesuffix("-migrate")
    offline = (f"offline: {name} stops", "with --allow-downtime") if pods.offline else ()
    return Box(f"Migration of {name}", offline)


def _checks(wanted: Rollout) -> Boxes:
    """Return the boxes between the start of the new release and the switch."""
    count = wanted.smoke_tests
    tests = f"{count} through the preview" if count else "none"
    hold = (Box("Pause", ("until `lapwing promote`",)),) if wanted.hold else ()
    return (
        Box("Idle slot", ("the new release starts", "health checks pass")),
        Box("Smoke tests", (tests,)),
        *hold,
    )


def _analysis(wanted: Rollout) -> Box:
    if not wanted.window_s:
        return Box("Analysis", ("off",))
    return Box("Analysis", (f"{show_duration(wanted.window_s)}: fails on", *limits(wanted)))


def _one_switch(subject: Subject) -> tuple[Band, ...]:
    """Draw the deployment on a machine: one update of the routes for all services."""
    wanted = [p.rollout for p in subject.services if p.rollout is not None]
    largest = Rollout(
        smoke_tests=sum(r.smoke_tests for r in wanted),
        hold=any(r.hold for r in wanted),
        window_s=max((r.window_s for r in wanted), default=0),
        max_error_rate=min((r.max_error_rate for r in wanted if r.max_error_rate), default=None),
        max_p95_s=min((r.max_p95_s for r in wanted if r.max_p95_s), default=None),
        keep_s=max((r.keep_s for r in wanted), default=0),
    )
    names = tuple(p.part for p in subject.blue_green)
    before = (*_jobs(subject, late=False), *_checks(largest))
    routes = Box("One update of the routes", ("switches all services:", ", ".join(names)))
    switch = (routes, Box("Confirmed", ("by Envoy",)), _analysis(largest))
    keep = f"{show_duration(largest.keep_s)}: a rollback only changes routes"
    after = (
        *_jobs(subject, late=True),
        Box("Old slot keeps running", (keep,)),
        Box("Drain", ("until the last connection ends",)),
        Box("Stop", ("the slot is idle",)),
    )
    failures = (
        Box("Before the switch", ("new replicas stop", "clients are not affected")),
        Box("After the switch", ("routes return to the old slot",)),
        Box("In both cases", ("a revert is committed",)),
    )
    return (
        Band("Before the switch", before, chained=True, to_next="all passed"),
        Band("Switch", switch, chained=True, to_next="healthy", tint="violet"),
        Band("After the switch", after, chained=True, tint="green"),
        Band("On failure", failures, tint="orange"),
    )


def _one_rollout_each(subject: Subject) -> tuple[Band, ...]:
    """Draw the deployment on a cluster: a Rollout for each service, at the same time."""
    jobs = _jobs(subject, late=False)
    late = _jobs(subject, late=True)
    alike: dict[Rollout | None, list[str]] = {}
    for pods in subject.blue_green:
        alike.setdefault(pods.rollout, []).append(pods.part)
    first = [Band("First", jobs, to_next="succeeded")] if jobs else []
    bands = [*first]
    for wanted, parts in alike.items():
        bands += _service(parts, wanted or Rollout(), later=bool(bands[len(first) :]))
    if late:
        bands.append(Band("Last", late))
    failures = (
        Box("Before its switch", ("new pods stop", "clients are not affected")),
        Box("After its switch", ("this service switches back", "to the old slot")),
    )
    return (*bands, Band("If a Rollout fails", failures, tint="orange"))


def _service(parts: list[str], wanted: Rollout, *, later: bool) -> Iterator[Band]:
    """Draw the steps of services with the same settings."""
    [name, *others] = parts
    which = "the Service of each" if others else f"the Service of {name}"
    switch = Box("Switch", (f"{which} selects the new pods",))
    keep = Box("Old slot", (f"keeps running for {show_duration(wanted.keep_s)}",))
    steps = (*_checks(wanted), switch, _analysis(wanted), keep)
    title = f"Rollout {name}" + (", at the same time" if later else "")
    if others:
        names = (Box(", ".join(parts)),)
        title = f"{len(parts)} Rollouts, at the same time"
        yield Band("Services with the same steps", names, tint="green", to_next="each")
    yield Band(title, steps, chained=True, tint="green")


def _rolling_update(subject: Subject) -> tuple[Band, ...]:
    """Draw a deployment without Argo Rollouts: Deployments with rolling updates."""
    steps = (
        *_jobs(subject, late=False),
        Box("New pod", ("starts beside the old ones",)),
        Box("Readiness", ("the health check passes",)),
        Box("Old pod", ("ends within its grace period",)),
        *_jobs(subject, late=True),
    )
    failures = (
        Box("New pods not ready", ("old pods keep serving",)),
        Box("lapwing abort", ("restores the last successful deployment",)),
    )
    return (
        Band("Update, one pod after the other", steps, chained=True, tint="green"),
        Band("On failure", failures, tint="orange"),
    )
