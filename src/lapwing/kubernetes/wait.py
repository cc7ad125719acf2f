"""Wait until objects are ready, with a progress line for each change, and report why they are not.

The objects are polled, at short intervals after a change, then every second: a watch would have to
be restarted whenever it breaks. A problem that waiting does not solve (a missing image, a crash
loop) ends the wait once it has lasted for `patience` seconds, long before the deadline: many
programs crash once or twice until their database is ready.

`ResourceWaiter` has the longer steps of an upgrade: it deletes, scales and waits for hours, and
tolerates an API server that is unreachable for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from lapwing.errors import ClusterUnreachableError, DeploymentFailed
from lapwing.kubernetes import Report, health, problems, rollouts
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.health import Health
from lapwing.kubernetes.objects import Object, Reference, is_owned_by, is_terminating
from lapwing.kubernetes.problems import Problem
from lapwing.system.retry import RetryPolicy

POLL = RetryPolicy(first_delay=0.1, max_delay=1.0)
"""The interval of polling, in seconds: it grows while nothing changes."""
LOG_LINES = 12
"""Lines of the log that are shown of a container that crashes."""
MAX_OUTAGE_S = 120.0
"""Seconds that the API server may be unreachable during a step of an upgrade."""
TERMINATION_TIMEOUT_S = 300.0
"""Seconds that an object and its pods may take to be deleted."""
GRACE_MARGIN_S = 60.0
"""Seconds after the grace period of a pod in which the kubelet kills and removes it."""
MAX_WAIT_S = 12 * 3600.0
"""The longest wait: for a backup, a restore, a migration."""
JOB_PATIENCE_S = 60.0
"""Seconds that a Job's pod may have a problem: its image may have to be pulled first."""


@dataclass(frozen=True, slots=True)
class WaitLimits:
    """Seconds to wait, and seconds that a problem may last that waiting does not solve."""

    deadline: float = 600.0
    patience: float = 20.0


def wait_until_ready(
    api: ApiClient,
    references: Sequence[Reference],
    *,
    limits: WaitLimits,
    report: Report = lambda _: None,
) -> dict[Reference, Health]:
    """Wait until every object is ready or held; returns the health of each.

    Raises DeploymentFailed with the problems, and the last lines of the log that explains them.
    """
    check = _ReadinessCheck(api, references, limits)
    poll(check.look, report)
    return check.states


def poll(look: Callable[[], str | None], report: Report) -> None:
    """Call `look` until it returns None; report what it returns when that changes."""
    reported, unchanged = "", 0
    while (text := look()) is not None:
        if text != reported:
            report(text)
            reported, unchanged = text, 0
        unchanged += 1
        time.sleep(POLL.delay(unchanged))


class _ReadinessCheck:
    """What is known of objects that are waited for, between two looks."""

    def __init__(
        self,
        api: ApiClient,
        references: Sequence[Reference],
        limits: WaitLimits,
        *,
        resume_held: bool = False,
    ) -> None:
        self._api, self._references, self._limits = api, references, limits
        self._resume_held = resume_held
        self._began = time.monotonic()
        self._past: frozenset[str] | None = None
        """Versions of the events at the first look, which are about an earlier state."""
        self._since: dict[str, float] = {}
        self.states: dict[Reference, Health] = {}

    def look(self) -> str | None:
        """Return what is not ready yet, None if all is. Raises DeploymentFailed."""
        api = self._api
        if self._past is None:
            spaces = _namespaces(self._references)
            events = (e for space in spaces for e in api.list("v1", "Event", space))
            self._past = frozenset(map(_version, events))
        self.states = states = read_health(api, self._references)
        final = {r: h for r, h in states.items() if h.state == "failed" and not h.may_pass}
        if final:
            raise not_ready_error(api, final, find_problems(api, final, self._past))
        finished = ("ready",) if self._resume_held else ("ready", "held")
        pending = {r: h for r, h in states.items() if h.state not in finished}
        if not pending:
            return None
        for held in (r for r, h in pending.items() if h.state == "held"):
            rollouts.resume(api, held)
        found = find_problems(api, pending, self._past)
        line = progress(pending) + (f" ({found[0].text})" if found else "")
        failed = (h for h in pending.values() if h.state == "failed")
        found += [problems.of_failure(h.text) for h in failed]
        self._check_limits(pending, found)
        return line

    def _check_limits(self, pending: Mapping[Reference, Health], found: list[Problem]) -> None:
        now = time.monotonic()
        self._since = {p.text: self._since.get(p.text, now) for p in found}
        patience = self._limits.patience
        lasting = [p for p in found if p.final and now - self._since[p.text] >= patience]
        if lasting or now - self._began > self._limits.deadline:
            found = lasting or found or find_problems(self._api, pending)
            raise not_ready_error(self._api, pending, found, seconds=now - self._began)


def read_health(api: ApiClient, references: Sequence[Reference]) -> dict[Reference, Health]:
    """Return the health of objects now."""
    missing = Health("progressing", "does not exist yet")
    found = {reference: api.get(reference) for reference in references}
    return {r: _judge(api, t) if t is not None else missing for r, t in found.items()}


def _judge(api: ApiClient, thing: Object) -> Health:
    if thing["kind"] != "HorizontalPodAutoscaler":
        return health.judge(thing)
    return health.judge_autoscaler(thing, api.get(Reference.of_scale_target(thing)))


def progress(pending: Mapping[Reference, Health]) -> str:
    """Return one line that names what is not ready."""
    parts = [f"{r.name}: {h.text}" if h.text else r.name for r, h in sorted(pending.items())]
    more = f", and {len(parts) - 4} more" if len(parts) > 4 else ""
    return ", ".join(parts[:4]) + more


def find_problems(
    api: ApiClient, references: Iterable[Reference], past: frozenset[str] = frozenset()
) -> list[Problem]:
    """Return what keeps the pods of these objects from running.

    `past` are versions of events to ignore: events are kept for an hour and may be about what is
    solved.
    """
    wanted = list(references)
    found: list[Problem] = []
    for namespace in _namespaces(wanted):
        pods, events = _pods(api, namespace, wanted), api.list("v1", "Event", namespace)
        if any(e.get("reason") in problems.VOLUME_REASONS for e in events):
            claims = api.list("v1", "PersistentVolumeClaim", namespace)
            found += problems.of_volumes(pods, claims, events)
        found += problems.of_pods(pods)
        newer = (e for e in events if _version(e) not in past)
        found += problems.of_events(newer, [r.name for r in wanted])
    return sorted(found, key=lambda p: not p.final)


def not_ready_error(
    api: ApiClient,
    states: Mapping[Reference, Health],
    found: Sequence[Problem],
    seconds: float = 0.0,
) -> DeploymentFailed:
    """Build the error that says why objects are not ready."""
    names = ", ".join(str(r) for r in sorted(states))
    reasons = list(dict.fromkeys(p.text for p in found))
    reasons = reasons or [h.text for h in states.values() if h.text] or ["unknown reason"]
    after = f" within {seconds:.0f} s" if seconds else ""
    logged = next((p for p in found if p.container), None)
    namespace = next(iter(states)).namespace
    return DeploymentFailed(
        f"{names} did not become ready{after}: {'; '.join(reasons[:3])}.",
        detail=(last_lines(api, namespace, logged) if logged else "") or None,
        hint=next((p.hint for p in found if p.hint), None),
    )


def last_lines(api: ApiClient, namespace: str, found: Problem, count: int = LOG_LINES) -> str:
    """Return the end of the log that explains a problem; empty if there is none."""
    assert found.pod is not None
    assert found.container is not None
    for previous in (found.previous, not found.previous):
        text = api.log(namespace, found.pod, found.container, lines=count, previous=previous)
        if text.strip():
            return text.strip()
    return ""


def _namespaces(references: Iterable[Reference]) -> list[str]:
    return sorted({r.namespace for r in references if r.namespace})


def _pods(api: ApiClient, namespace: str, references: Iterable[Reference]) -> list[Object]:
    """List the pods that belong to these objects, directly or through a ReplicaSet."""
    names = {(r.kind, r.name) for r in references}
    sets = {
        ("ReplicaSet", s["metadata"]["name"])
        for s in api.list("apps/v1", "ReplicaSet", namespace)
        if _owners(s) & names and int(s["spec"].get("replicas") or 0) > 0
    }
    return [p for p in api.list("v1", "Pod", namespace) if _owners(p) & (names | sets)]


def _owners(thing: Object) -> set[tuple[str, str]]:
    return {(o["kind"], o["name"]) for o in thing["metadata"].get("ownerReferences") or ()}


def _version(event: Object) -> str:
    return str(event["metadata"].get("resourceVersion"))


class ResourceWaiter:
    """Changes objects and waits for the outcome.

    `heartbeat` is called at every poll and raises if another command has taken over; `report` gets
    a line for whatever is waited for.
    """

    def __init__(
        self, api: ApiClient, heartbeat: Callable[[], None], report: Report = lambda _: None
    ) -> None:
        """Wait with a client of the API."""
        self.api, self.heartbeat, self.report = api, heartbeat, report

    def until(self, look: Callable[[], str | None], timeout_s: float | Callable[[], float]) -> None:
        """Call `look` until it returns None. Raises DeploymentFailed on a timeout.

        A timeout that depends on what `look` finds is a function.
        """
        began = time.monotonic()
        outage: float | None = None

        def guarded() -> str | None:
            nonlocal outage
            now = time.monotonic()
            try:
                self.heartbeat()
                text, outage = look(), None
            except ClusterUnreachableError:
                outage = outage or now
                if now - outage > MAX_OUTAGE_S:
                    raise
                text = "the API server is unreachable"
            limit = timeout_s() if callable(timeout_s) else timeout_s
            if text is not None and now - began > limit:
                raise DeploymentFailed(f"Timed out after {limit:.0f} s: {text.rstrip('.')}.")
            return text

        poll(guarded, self.report)

    def ready(self, references: Sequence[Reference], *, patience: float = 20.0) -> None:
        """Wait until objects are ready; resume paused Rollouts, since clients get 503 meanwhile.

        Raises DeploymentFailed once a problem has lasted for `patience` seconds.
        """
        limits = WaitLimits(MAX_WAIT_S, patience)
        check = _ReadinessCheck(self.api, references, limits, resume_held=True)
        self.until(check.look, MAX_WAIT_S)

    def complete(self, job: Object) -> Object:
        """Wait for a Job; returns it.

        Raises DeploymentFailed with the last lines of its log, or if the Job is deleted.
        """
        reference = Reference.of(job)
        limits = WaitLimits(MAX_WAIT_S, JOB_PATIENCE_S)
        check = _ReadinessCheck(self.api, [reference], limits)

        def look() -> str | None:
            self._existing(reference)
            return check.look()

        self.until(look, MAX_WAIT_S)
        return self._existing(reference)

    def _existing(self, job: Reference) -> Object:
        found = self.api.get(job)
        if found is None:
            raise DeploymentFailed(f"{job} was deleted while it was running.")
        return found

    def delete(self, reference: Reference) -> None:
        """Delete an object; returns when it, its ReplicaSets and its pods are gone.

        Waits for longer than the grace periods of its pods.
        """
        uids: set[str] = set()
        graces = [0.0]

        def look() -> str | None:
            found = self.api.get(reference)
            if found is None:
                return self._dependents(reference, uids, graces)
            uids.add(found["metadata"]["uid"])
            if found["kind"] == "Pod":
                graces.append(_grace_s(found))
            if not is_terminating(found):
                self.api.delete(reference, uid=found["metadata"]["uid"])
            return f"{reference} is being deleted"

        self.until(look, lambda: _termination_timeout_s(graces))

    def _dependents(self, reference: Reference, uids: set[str], graces: list[float]) -> str | None:
        """Report dependents of a deleted object, found by its unique ids; note grace periods."""
        if not uids:
            return None
        sets = self.api.list("apps/v1", "ReplicaSet", reference.namespace)
        owned = [s for s in sets if is_owned_by(s, uids)]
        uids |= {s["metadata"]["uid"] for s in owned}
        pods = [p for p in self.api.list("v1", "Pod", reference.namespace) if is_owned_by(p, uids)]
        graces += [_grace_s(p) for p in pods]
        left = owned or pods
        return f"pods of {reference} are terminating" if left else None

    def scale(self, reference: Reference, count: int) -> None:
        """Set the replicas of a workload, if it exists."""
        live = self.api.get(reference)
        if live is not None and health.wanted_replicas(live["spec"]) != count:
            self.api.patch(reference, {"spec": {"replicas": count}})

    def no_pods(self, namespace: str, selector: str) -> None:
        """Wait until no pod with these labels is running, for longer than their grace periods."""
        graces = [0.0]

        def running() -> list[Object]:
            pods = self.api.list("v1", "Pod", namespace, selector)
            ended = ("Succeeded", "Failed")
            return [p for p in pods if (p.get("status") or {}).get("phase") not in ended]

        def read_graces() -> None:
            graces.extend(_grace_s(p) for p in running())

        def look() -> str | None:
            left = sorted(p["metadata"]["name"] for p in running())
            return f"waiting for {', '.join(left[:3])} to terminate" if left else None

        self.until(read_graces, TERMINATION_TIMEOUT_S)
        self.until(look, _termination_timeout_s(graces))


def _grace_s(pod: Object) -> float:
    return float(pod["spec"].get("terminationGracePeriodSeconds") or 0)


def _termination_timeout_s(graces: Iterable[float]) -> float:
    """Return how long pods with these grace periods may take to be removed, in seconds."""
    return max(TERMINATION_TIMEOUT_S, max(graces) + GRACE_MARGIN_S)
