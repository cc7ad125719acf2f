"""Run the scenario under load, with the commits that `deploy` and `rollback` make."""

from __future__ import annotations

import time
from collections.abc import Callable

from lapwing.commands.demo import scenario
from lapwing.commands.demo.result import Result, StepResult
from lapwing.commands.demo.sandbox import STACK, Sandbox
from lapwing.commands.demo.scenario import Step
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import DeploymentFailed
from lapwing.load.client import Client, running
from lapwing.load.record import now
from lapwing.observed import status
from lapwing.observed.status import Event
from lapwing.stack.load import LOCAL, find, load
from lapwing.targets import bundles, guards, local_agent, planned
from lapwing.targets.planned import PlannedChange

PAUSE_S = 2.0
"""Time with load only, before the first step and after each."""
Show = Callable[[str], None]


def run(sandbox: Sandbox, report: Show, say: Show) -> Result:
    """Run the scenario; call `report` with progress, and `say` with the outcome of each step.

    Raises DeploymentFailed if the example does not start, LoadError if the load client fails, and
    the errors of a build.
    """
    began = time.monotonic()
    scenario.prepare(sandbox)
    first = _step(sandbox, Step("the first release", "deploy", "succeeded"), report)
    if first.outcome != "succeeded":
        raise DeploymentFailed(f"The example does not start: {first.reason}")
    results = []
    with running(scenario.plan(sandbox)) as client:
        report("waiting for the first responses")
        client.wait_for_answers()
        _pause(client, report)
        for step in scenario.STEPS:
            say(f"{step.name}: {step.shown}")
            results.append(_step(sandbox, step, report))
            say(f"  {_outcome(results[-1])}")
            _pause(client, report)
        report("stopping the load")
        ledger = client.stop()
    return Result(results=tuple(results), ledger=ledger, seconds=time.monotonic() - began)


def _pause(client: Client, report: Show) -> None:
    """Wait under load. Raises LoadError if the load client has failed."""
    report(f"{client.ledger().sent} requests so far")
    time.sleep(PAUSE_S)
    client.ledger()


def _step(sandbox: Sandbox, step: Step, report: Show) -> StepResult:
    """Run one step to its outcome."""
    for edit in step.edits:
        edit.make(sandbox.source)
    if step.edits:
        sandbox.commit(step.name)
    local_agent.begin(sandbox.settings)
    old = _running(sandbox)
    plan = _plan(sandbox, step, report)
    local_agent.ensure(sandbox.settings, report)
    listener = local_agent.watch(sandbox.settings, sandbox.where)
    repository = DesiredRepository(sandbox.settings.desired)
    commit = guards.commit(repository, guards.check(repository, plan, "deploy"))
    committed = now()
    moments: dict[str, float] = {}

    def on_event(event: Event) -> None:
        if event.kind == "note":
            report(event.text)
        if event.kind == "state" and event.state is not None:
            moments.setdefault(event.state, event.time)

    followed = local_agent.follow(sandbox.settings, listener, commit, on_event)
    return StepResult(
        name=step.name,
        verb=step.verb,
        outcome=followed.outcome,
        expected=step.outcome,
        reason=None if followed.outcome == "succeeded" else followed.reason,
        commit=commit,
        old=old,
        new=plan.document.services["api"].release,
        committed=committed,
        moments=moments,
    )


def _plan(sandbox: Sandbox, step: Step, report: Show) -> PlannedChange:
    """Plan what a step commits."""
    if step.verb == "rollback":
        return planned.rollback(DesiredRepository(sandbox.settings.desired), sandbox.where, "demo")
    return bundles.plan(
        load(find(sandbox.source), LOCAL),
        sandbox.settings,
        services=step.services,
        actor="demo",
        progress=report,
    )


def _running(sandbox: Sandbox) -> str:
    """Return the active release of the API; empty before the first one."""
    found = status.read(sandbox.settings.environment(STACK, LOCAL))
    for service in found.services if found else ():
        if service.name == "api" and service.active is not None:
            return service.active.release
    return ""


def _outcome(step: StepResult) -> str:
    """Return the outcome of a step in words."""
    switched = f"switched {step.to_switch:.2f} s after the commit" if step.to_switch else ""
    if step.outcome == "succeeded":
        return switched or "done"
    what = {"failed": "rejected", "rolled-back": f"{switched}, then rolled back"}
    return f"{what.get(step.outcome, step.outcome)}: {step.reason}"
