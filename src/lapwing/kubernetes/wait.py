"""Waiting until what was applied runs, with a line for each step, and giving up in words.

Looks again every second; a watch would tell sooner and would have to be mended whenever it breaks.
A trouble that waiting does not cure (an image that is not there, a crash loop) ends the wait when
it has lasted for `patience` seconds, long before the deadline: many programs crash once or twice
until the database that they need is up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lapwing.errors import DeploymentFailed
from lapwing.kubernetes import health, problems
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.health import Health
from lapwing.kubernetes.objects import Object, Reference
from lapwing.kubernetes.problems import Problem

LOOK = 1.0
"""Seconds between two looks."""
LAST_LINES = 12
"""Lines of a log that are shown of a container that crashes."""


@dataclass(frozen=True, slots=True)
class WaitLimits:
    """How long to wait, and how long a trouble may last that waiting does not cure. Seconds."""

    deadline: float = 600.0
    patience: float = 20.0


def wait_until_ready(
    api: ApiClient,
    references: Sequence[Reference],
    *,
    limits: WaitLimits,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[Reference, Health]:
    """Wait until every object is ready, or held for a person; returns the health of each.

    Raises DeploymentFailed with what is wrong and the last lines of the log that tell it.
    """
    began = time.monotonic()
    past = frozenset(_version(e) for e in _warnings(api, references))
    troubled: dict[str, float] = {}
    told = ""
    while True:
        states = look(api, references)
        failed = {r: h for r, h in states.items() if h.state == "failed"}
        pending = {r: h for r, h in states.items() if h.state == "progressing"}
        if failed:
            held_against = {r: h for r, h in failed.items() if not h.may_pass}
            if held_against:
                raise give_up(api, held_against, troubles(api, held_against, past))
            pending |= failed
        if not pending:
            return states
        found = troubles(api, pending, past)
        now = time.monotonic()
        line = progress(pending) + (f" ({found[0].text})" if found else "")
        if line != told:
            tell(line)
            told = line
        found += [problems.of_failure(h.text) for h in failed.values()]
        troubled = {t.text: troubled.get(t.text, now) for t in found}
        lasting = [t for t in found if t.final and now - troubled[t.text] >= limits.patience]
        if lasting or now - began > limits.deadline:
            found = lasting or found or troubles(api, pending)
            raise give_up(api, pending, found, seconds=now - began)
        time.sleep(LOOK)


def look(api: ApiClient, references: Sequence[Reference]) -> dict[Reference, Health]:
    """The health of objects now."""
    states = {}
    for reference in references:
        found = api.get(reference)
        gone = Health("progressing", "is not there (yet)")
        states[reference] = health.judge(found) if found is not None else gone
    return states


def progress(pending: dict[Reference, Health]) -> str:
    """One line that says what is waited for. Pure."""
    parts = [f"{r.name}: {h.text}" if h.text else r.name for r, h in sorted(pending.items())]
    more = f", and {len(parts) - 4} more" if len(parts) > 4 else ""
    return ", ".join(parts[:4]) + more


def troubles(
    api: ApiClient, references: Iterable[Reference], past: frozenset[str] = frozenset()
) -> list[Problem]:
    """What keeps the pods of these objects from running. `past` are versions of events that were
    there before: they live for an hour, and may tell of what is over."""
    found: list[Problem] = []
    wanted = list(references)
    for namespace in sorted({r.namespace for r in wanted if r.namespace}):
        found += problems.of_pods(_pods(api, namespace, wanted))
    events = [e for e in _warnings(api, wanted) if _version(e) not in past]
    return found + problems.of_events(events)


def give_up(
    api: ApiClient, states: dict[Reference, Health], found: Sequence[Problem], seconds: float = 0.0
) -> DeploymentFailed:
    """The error that tells why objects do not come to run."""
    names = ", ".join(f"{r.kind} {r.name}" for r in sorted(states))
    why = list(dict.fromkeys(t.text for t in found)) or [h.text for h in states.values() if h.text]
    after = f" within {seconds:.0f} s" if seconds else ""
    says = next((t for t in found if t.container), None)
    namespace = next(iter(states)).namespace
    lines = last_lines(api, namespace, says) if says else ""
    return DeploymentFailed(
        f"{names} did not come to run{after}: {'; '.join(why[:3]) or 'no reason is known'}.",
        detail=lines or None,
        hint=next((t.hint for t in found if t.hint), None),
    )


def last_lines(api: ApiClient, namespace: str, found: Problem, count: int = LAST_LINES) -> str:
    """The end of the log that tells what is wrong; empty if there is none to be had."""
    assert found.pod is not None
    assert found.container is not None
    for previous in (found.previous, not found.previous):
        text = api.log(
            namespace, found.pod, found.container, lines=count, previous=previous
        ).strip()
        if text:
            return text
    return ""


def _pods(api: ApiClient, namespace: str, references: Iterable[Reference]) -> list[Object]:
    """The pods that belong to these objects, directly or through a ReplicaSet."""
    names = {(r.kind, r.name) for r in references}
    sets = {
        s["metadata"]["name"]
        for s in api.list("apps/v1", "ReplicaSet", namespace)
        if owners(s) & names and int(s["spec"].get("replicas") or 0) > 0
    }
    wanted = names | {("ReplicaSet", n) for n in sets}
    return [p for p in api.list("v1", "Pod", namespace) if owners(p) & wanted]


def _warnings(api: ApiClient, references: Iterable[Reference]) -> list[Object]:
    """Events about these objects, and about ReplicaSets named after them."""
    wanted = list(references)
    found: list[Object] = []
    for namespace in sorted({r.namespace for r in wanted if r.namespace}):
        names = tuple(r.name for r in wanted if r.namespace == namespace)
        listed = api.list("v1", "Event", namespace)
        found += [e for e in listed if str(e["involvedObject"].get("name", "")).startswith(names)]
    return found


def _version(event: Object) -> str:
    return str(event["metadata"].get("resourceVersion"))


def owners(thing: Object) -> set[tuple[str, str]]:
    """Kind and name of what an object belongs to. Pure."""
    return {(o["kind"], o["name"]) for o in thing["metadata"].get("ownerReferences") or ()}
