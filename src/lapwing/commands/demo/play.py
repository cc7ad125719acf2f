"""Plays the story under load: what a person would do with `deploy` and `rollback`, act by act."""

from __future__ import annotations

import time
from collections.abc import Callable

from lapwing.commands.demo import story
from lapwing.commands.demo.result import Played, Result
from lapwing.commands.demo.stage import STACK, Stage
from lapwing.commands.demo.story import Act
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import DeploymentFailed
from lapwing.load.client import Client, running
from lapwing.load.record import now
from lapwing.observed import status
from lapwing.observed.status import Event
from lapwing.plan.model import Document
from lapwing.stack.load import LOCAL, find, load
from lapwing.targets import bundles as deploy
from lapwing.targets import follow
from lapwing.targets import local_agent as agent
from lapwing.targets import planned as change
from lapwing.targets.follow import Outcome

BETWEEN = 2.0
"""Seconds of plain load before the first act, and after each."""
Tell = Callable[[str], None]


def play(stage: Stage, tell: Tell, say: Tell) -> Result:
    """Play the whole story; `tell` hears of each step, `say` of each act that is over.

    Raises DeploymentFailed if the example cannot even be brought up, LoadError if the load client
    does not work, and whatever a build raises.
    """
    began = time.monotonic()
    story.prepare(stage)
    first = _act(stage, Act("the first release", "deploy", "succeeded"), tell)
    if first.outcome != "succeeded":
        raise DeploymentFailed(f"The example does not run: {first.reason}")
    played = []
    with running(story.plan(stage)) as client:
        tell("waiting for the load")
        client.wait_for_answers()
        _go_on(client, tell)
        for act in story.ACTS:
            say(f"{act.name}: {act.shown}")
            played.append(_act(stage, act, tell))
            say(f"  {_came_of_it(played[-1])}")
            _go_on(client, tell)
        tell("ending the load")
        ledger = client.stop()
    return Result(played=tuple(played), ledger=ledger, seconds=time.monotonic() - began)


def _go_on(client: Client, tell: Tell) -> None:
    """Nothing but load for a while. Raises LoadError if there is none any more."""
    tell(f"{client.ledger().sent} requests so far")
    time.sleep(BETWEEN)
    client.ledger()


def _act(stage: Stage, act: Act, tell: Tell) -> Played:
    """Play one act to its end."""
    for edit in act.edits:
        edit.make(stage.source)
    if act.edits:
        stage.commit(act.name)
    agent.begin(stage.settings)
    old = _running(stage)
    document, expected = _wanted(stage, act, tell)
    agent.ensure(stage.settings, tell)
    listener = follow.watch(stage.settings, STACK, LOCAL)
    commit = DesiredRepository(stage.settings.desired).commit(document, expected=expected)
    committed = now()
    moments: dict[str, float] = {}

    def hear(event: Event) -> None:
        if event.kind == "note":
            tell(event.text)
        if event.kind == "state" and event.state is not None:
            moments.setdefault(event.state, event.time)

    came: Outcome = follow.follow(stage.settings, listener, commit, tell=hear)
    return Played(
        name=act.name,
        verb=act.verb,
        outcome=came.outcome,
        expected=act.outcome,
        reason=None if came.outcome == "succeeded" else came.reason,
        commit=commit,
        old=old,
        new=document.services["api"].release,
        committed=committed,
        moments=moments,
    )


def _wanted(stage: Stage, act: Act, tell: Tell) -> tuple[Document, str | None]:
    """The document that an act commits, and the commit that it is based on."""
    if act.verb == "rollback":
        found = change.rollback(DesiredRepository(stage.settings.desired), stage.where, "demo")
        return found.document, found.expected
    prepared = deploy.prepare(
        load(find(stage.source), LOCAL),
        stage.settings,
        services=act.services,
        actor="demo",
        tell=tell,
    )
    return prepared.document, prepared.expected


def _running(stage: Stage) -> str:
    """The release of the API that has the traffic; empty before the first one."""
    found = status.read(stage.settings.environment(STACK, LOCAL))
    for service in found.services if found else ():
        if service.name == "api" and service.active is not None:
            return service.active.release
    return ""


def _came_of_it(act: Played) -> str:
    """An act's outcome in a sentence."""
    switched = f"switched {act.to_switch:.2f} s after the commit" if act.to_switch else ""
    if act.outcome == "succeeded":
        return switched or "done"
    what = {"failed": "rejected", "rolled-back": f"{switched}, then rolled back"}
    return f"{what.get(act.outcome, act.outcome)}: {act.reason}"
