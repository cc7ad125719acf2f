"""Following a deployment: from the commit to what became of it, as the agent tells it.

Reads the event log, and once a second the history: an agent that is killed between the two has
told one of them only. If the agent dies meanwhile, another is started and goes on; if the person
goes away, the deployment goes on too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lapwing.desired import history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import AgentError, DesiredStateError
from lapwing.observed import agent as observed
from lapwing.observed.status import Event, Follower
from lapwing.settings import Settings
from lapwing.targets import local_agent as agent

PAUSE = 0.015
"""Seconds between two looks at the event log."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a deployment. `times` are seconds from the commit to each state it entered;
    `held` that it waits for a person (and nothing has become of it yet)."""

    commit: str
    outcome: str
    reason: str
    detail: str | None = None
    hint: str | None = None
    held: bool = False
    times: dict[str, float] = field(default_factory=dict)


def watch(settings: Settings, stack: str, environment: str) -> Follower:
    """Begin to listen; call it before the commit is made, so that nothing is missed."""
    return Follower(settings.environment(stack, environment))


def follow(
    settings: Settings,
    follower: Follower,
    commit: str,
    *,
    tell: Callable[[Event], None] = lambda _: None,
    until_held: bool = True,
) -> Outcome:
    """Wait for the outcome of a commit. With `until_held`, return also when it is held.

    Raises AgentError if the agent cannot be kept running.
    """
    began = time.time()
    times: dict[str, float] = {}
    looked = time.monotonic()
    restarts = 0
    noted: Outcome | None = None
    while True:
        for event in follower.read():
            if event.commit != commit:
                continue
            tell(event)
            if event.state is not None and event.kind == "state":
                times.setdefault(event.state, event.time - began)
            if event.kind == "outcome" and event.outcome is not None:
                return Outcome(
                    commit, event.outcome, event.text, event.detail, event.hint, times=times
                )
            if until_held and event.kind == "note" and event.state == "holding":
                return Outcome(commit, "held", event.text, held=True, times=times)
        if time.monotonic() - looked > 1:
            looked = time.monotonic()
            if noted is not None:
                return noted  # And no event told of it: its agent was killed in between.
            noted = _noted(settings, commit, times)
            if not observed.is_running(settings.agent):
                restarts += 1
                if restarts > 5:
                    raise AgentError(
                        "The agent ends again and again.",
                        hint=f"Its log is {settings.agent / 'agent.log'}.",
                    )
                agent.ensure(settings)
        time.sleep(PAUSE)


def _noted(settings: Settings, commit: str, times: dict[str, float]) -> Outcome | None:
    """The outcome that the history tells, if it tells one."""
    try:
        found = history.outcome(DesiredRepository(settings.desired), commit)
    except DesiredStateError:
        return None
    return found and Outcome(commit, found[0], found[1] or found[0], times=times)
