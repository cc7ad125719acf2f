"""Decide: what a new document means for what runs. Pure.

Given the document that is wanted and the memory of the environment, each service gets one verdict:

    KEEP      the active generation already is what is wanted
    ADJUST    same processes, other settings (route, replica count, rollout rules): no new slot
    SWITCH    the warm generation in the idle slot is what is wanted: a change of route, no boot
    START     a new generation in the idle slot
    REMOVE    the service is not in the document any more

and the environment gets one intent: do nothing, promote what is held, undo what is in flight, or
lead a rollout. While one is in flight there are no verdicts: a newer document first ends that one,
and is then decided on from what it left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from lapwing.agent.rollout import TERMINAL, Route
from lapwing.agent.state import EnvironmentState
from lapwing.plan.model import Document, Service


class Verdict(StrEnum):
    """What a document means for one service."""

    KEEP = "keep"
    ADJUST = "adjust"
    SWITCH = "switch"
    START = "start"
    REMOVE = "remove"


class Intent(StrEnum):
    """What a document means for the environment."""

    NOTHING = "nothing"
    PROMOTE = "promote"
    ABORT = "abort"
    ROLL_OUT = "roll-out"


@dataclass(frozen=True, slots=True)
class Decision:
    """The intent and, for ROLL_OUT, the verdict on each service and the way the rollout takes."""

    intent: Intent
    verdicts: dict[str, Verdict]
    route: Route = field(default_factory=Route)

    def having(self, *verdicts: Verdict) -> list[str]:
        """The services with one of these verdicts, in name order."""
        return sorted(n for n, v in self.verdicts.items() if v in verdicts)


def decide(wanted: Document, state: EnvironmentState) -> Decision:
    """What to do about a document that has become the head of the desired state."""
    flight = state.rollout
    if flight is not None and flight.state not in TERMINAL:
        if same(wanted, flight.document):
            promoted = wanted.deployment.kind == "promote"
            return Decision(Intent.PROMOTE if promoted else Intent.NOTHING, {})
        if same(wanted, state.document or _nothing(wanted)):
            return Decision(Intent.ABORT, {})
        return Decision(Intent.ROLL_OUT, {})
    verdicts = {name: verdict(name, spec, state) for name, spec in wanted.services.items()}
    current = state.document.services if state.document else {}
    verdicts |= dict.fromkeys(set(current) - set(wanted.services), Verdict.REMOVE)
    changed = any(v is not Verdict.KEEP for v in verdicts.values())
    if not changed and same(wanted, state.document or _nothing(wanted)):
        return Decision(Intent.NOTHING, verdicts)
    return Decision(Intent.ROLL_OUT, verdicts, route(wanted, verdicts, state))


def verdict(name: str, spec: Service, state: EnvironmentState) -> Verdict:
    """What a wanted service means, given what runs."""
    if spec.kind == "job":
        current = state.document.services.get(name) if state.document else None
        ran = {state.jobs.get(name), current.identity() if current else None}
        return Verdict.KEEP if spec.identity() in ran else Verdict.START
    active, warm = state.of(name, "active"), state.of(name, "warm")
    if active is not None and active.spec.identity() == spec.identity():
        return Verdict.KEEP if active.spec == spec else Verdict.ADJUST
    if warm is not None and warm.spec.identity() == spec.identity():
        return Verdict.SWITCH
    return Verdict.START


def route(wanted: Document, verdicts: dict[str, Verdict], state: EnvironmentState) -> Route:
    """Which optional states the rollout goes through.

    A return to an earlier release (rollback, revert) is not held, and is not judged by counters:
    what it goes back to was judged when it came. Jobs run for deployments only: a rollback never
    runs an old migration.
    """
    forward = wanted.deployment.kind in ("deploy", "promote")
    started = [
        wanted.services[n]
        for n, v in verdicts.items()
        if v is Verdict.START and wanted.services[n].kind != "job"
    ]
    jobs = any(v is Verdict.START and wanted.services[n].kind == "job" for n, v in verdicts.items())
    replaces = any(
        state.of(n, "active") for n, v in verdicts.items() if v in (Verdict.START, Verdict.SWITCH)
    )
    held = wanted.deployment.hold or any(s.rollout.hold for s in started)
    return Route(
        jobs=forward and jobs,
        test=any(s.rollout.smoke for s in started),
        hold=forward and wanted.deployment.kind != "promote" and held and replaces,
        analyse=forward and replaces and any(s.rollout.analysis for s in started),
    )


def _nothing(like: Document) -> Document:
    """What an environment is before its first deployment."""
    return Document(
        stack=like.stack,
        environment=like.environment,
        domains=like.domains,
        deployment=like.deployment,
    )


def same(one: Document, other: Document) -> bool:
    """Whether two documents want the same to run; who deployed and why does not matter."""
    return msgspec.structs.replace(one, deployment=other.deployment) == other
