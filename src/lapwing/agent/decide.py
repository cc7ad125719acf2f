"""Decides what a new document means for what is running. No I/O.

Given the desired document and the state of the environment, each service gets one verdict:

    KEEP      the active generation already matches
    ADJUST    same processes, other settings (route, replica count, rollout rules): no new slot
    SWITCH    the warm generation in the idle slot matches and is ready: a change of route, no boot
    START     a new generation in the idle slot
    REMOVE    the service is no longer in the document

and the environment gets one intent: do nothing, promote the paused rollout, abort the rollout in
progress, or perform a rollout. While one is in progress there are no verdicts: a newer document
first ends it, and the decision is then made from the state that it left.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
from msgspec import UNSET

from lapwing.agent.generations import is_usable
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
    """The intent and, for ROLL_OUT, the verdict on each service and the states of the rollout."""

    intent: Intent
    verdicts: dict[str, Verdict]
    route: Route = field(default_factory=Route)

    def services_with(self, *verdicts: Verdict) -> list[str]:
        """Return the services with one of these verdicts, in name order."""
        return sorted(n for n, v in self.verdicts.items() if v in verdicts)


def decide(wanted: Document, state: EnvironmentState) -> Decision:
    """Return what to do about a document that has become the head of the desired state."""
    rollout = state.rollout
    if rollout is not None and rollout.state not in TERMINAL:
        if same(wanted, rollout.document):
            promoted = wanted.deployment.kind == "promote"
            return Decision(Intent.PROMOTE if promoted else Intent.NOTHING, {})
        if same(wanted, state.document or empty(wanted)):
            return Decision(Intent.ABORT, {})
        return Decision(Intent.ROLL_OUT, {})
    verdicts = {name: verdict(name, spec, state) for name, spec in wanted.services.items()}
    current = state.document.services if state.document else {}
    verdicts |= dict.fromkeys(set(current) - set(wanted.services), Verdict.REMOVE)
    changed = any(v is not Verdict.KEEP for v in verdicts.values())
    if not changed and same(wanted, state.document or empty(wanted)):
        return Decision(Intent.NOTHING, verdicts)
    return Decision(Intent.ROLL_OUT, verdicts, route(wanted, verdicts, state))


def verdict(name: str, spec: Service, state: EnvironmentState) -> Verdict:
    """Return the verdict on a desired service, given what is running."""
    if spec.kind == "job":
        current = state.document.services.get(name) if state.document else None
        if spec.schedule is not UNSET:
            return Verdict.KEEP if current == spec else Verdict.ADJUST
        if current is not None and current.schedule is not UNSET:
            current = None  # It ran on a schedule until now.
        ran = {state.jobs.get(name), current.identity() if current else None}
        return Verdict.KEEP if spec.identity() in ran else Verdict.START
    active, warm = state.of(name, "active"), state.of(name, "warm")
    if active is not None and active.spec.identity() == spec.identity():
        return Verdict.KEEP if active.spec == spec else Verdict.ADJUST
    if warm is not None and warm.spec.identity() == spec.identity() and is_usable(warm):
        return Verdict.SWITCH
    return Verdict.START


def route(wanted: Document, verdicts: dict[str, Verdict], state: EnvironmentState) -> Route:
    """Return which optional states the rollout goes through.

    A rollback or revert is neither paused nor analysed, and a warm release is not tested again: the
    release was analysed and tested when it was deployed. Jobs run for deployments only: a rollback
    never runs an old migration. `hold` of the deployment pauses any change, `hold` of a service
    only a new generation of this service. The first deployment is never paused.
    """
    forward = wanted.deployment.is_forward
    started = [
        wanted.services[n]
        for n, v in verdicts.items()
        if v is Verdict.START and wanted.services[n].kind != "job"
    ]
    switched = [wanted.services[n] for n, v in verdicts.items() if v is Verdict.SWITCH]
    tested = [*started, *switched] if forward else started
    jobs = [
        wanted.services[n]
        for n, v in verdicts.items()
        if v is Verdict.START and wanted.services[n].kind == "job"
    ]
    replaces = any(
        state.of(n, "active") for n, v in verdicts.items() if v in (Verdict.START, Verdict.SWITCH)
    )
    is_running = state.document is not None and bool(state.document.services)
    held = wanted.deployment.hold or (replaces and any(s.rollout.hold for s in started))
    return Route(
        jobs=forward and any(not job.after for job in jobs),
        test=any(s.rollout.smoke or s.is_page for s in tested),
        hold=forward and wanted.deployment.kind != "promote" and held and is_running,
        analyse=forward and replaces and any(s.rollout.analysis for s in started),
        afterwards=forward and any(job.after for job in jobs),
    )


def empty(like: Document) -> Document:
    """Return the document of an environment before its first deployment."""
    return Document(
        stack=like.stack,
        environment=like.environment,
        domains=like.domains,
        acme=like.acme,
        edge=like.edge,
        maintenance=like.maintenance,
        backup=like.backup,
        logs=like.logs,
        deployment=like.deployment,
    )


def same(one: Document, other: Document) -> bool:
    """Return whether two documents differ at most in `deployment` and `maintenance`."""
    given = {"deployment": other.deployment, "maintenance": other.maintenance}
    return msgspec.structs.replace(one, **given) == other
