"""The life of one deployment, as a pure function from (state, event) to (state, actions).

A rollout leads all changed services of one commit together. Its states lie on a line:

    RESOURCES  databases and caches answer
    JOBS       migrations have run
    STARTING   the candidates run in the idle slots and are healthy
    TESTING    smoke tests pass on the preview host
    HOLDING    a person has said yes
    SWITCHING  one route table names all candidates, and Envoy has confirmed it
    ANALYSING  Envoy's counters stayed within bounds for the window
    SUCCEEDED

A state whose work is not wanted (no jobs, no hold) is passed over. Anything that goes wrong, and
any wish to stop, leads to UNDOING, which is one act whatever went before it: routes to the old
slots, candidates drained and stopped, the desired state put back. UNDOING cannot be interrupted;
it ends in the outcome that was decided on entering it.

Nothing here acts. The driver (`environment.py`) does the work that an action names, persists the
state before it acts, and comes back with an event; so after a kill the same state gives the same
actions again, and every action is one that can be done twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class State(StrEnum):
    """Where a rollout is."""

    RESOURCES = "resources"
    JOBS = "jobs"
    STARTING = "starting"
    TESTING = "testing"
    HOLDING = "holding"
    SWITCHING = "switching"
    ANALYSING = "analysing"
    UNDOING = "undoing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"


class Event(StrEnum):
    """What can happen to a rollout."""

    DONE = "done"
    """The work of the present state is done (HOLDING: promoted; UNDOING: undone)."""
    FAILED = "failed"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"


class Action(StrEnum):
    """What the driver has to do."""

    ENSURE_RESOURCES = "ensure-resources"
    RUN_JOBS = "run-jobs"
    START_CANDIDATES = "start-candidates"
    TEST_CANDIDATES = "test-candidates"
    AWAIT_PROMOTION = "await-promotion"
    SWITCH = "switch"
    ANALYSE = "analyse"
    SWITCH_BACK = "switch-back"
    RETIRE_CANDIDATES = "retire-candidates"
    RESTORE_DESIRED_STATE = "restore-desired-state"
    RECORD_OUTCOME = "record-outcome"


LINE = (
    State.RESOURCES,
    State.JOBS,
    State.STARTING,
    State.TESTING,
    State.HOLDING,
    State.SWITCHING,
    State.ANALYSING,
    State.SUCCEEDED,
)
TERMINAL = frozenset(
    {State.SUCCEEDED, State.FAILED, State.ROLLED_BACK, State.ABORTED, State.SUPERSEDED}
)
WORK = {
    State.RESOURCES: Action.ENSURE_RESOURCES,
    State.JOBS: Action.RUN_JOBS,
    State.STARTING: Action.START_CANDIDATES,
    State.TESTING: Action.TEST_CANDIDATES,
    State.HOLDING: Action.AWAIT_PROMOTION,
    State.SWITCHING: Action.SWITCH,
    State.ANALYSING: Action.ANALYSE,
}
UNINTERRUPTIBLE = frozenset({State.SWITCHING, State.UNDOING})
"""States that last milliseconds and are finished before a wish to stop is looked at."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the optional states this rollout goes through."""

    jobs: bool = False
    test: bool = False
    hold: bool = False
    analyse: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """The state after an event, what to do in it, and, in UNDOING, how it will end."""

    state: State
    actions: tuple[Action, ...]
    outcome: State | None = None


class ImpossibleEvent(Exception):
    """An event that cannot happen in this state: a defect of the driver, never of a user."""


def begin() -> Step:
    """The first step of a rollout."""
    return enter(State.RESOURCES)


def step(state: State, event: Event, route: Route, outcome: State | None = None) -> Step:
    """What follows on an event. `outcome` is the one decided on entering UNDOING.

    Raises ImpossibleEvent for an event in a terminal state, or one that UNDOING cannot take.
    """
    if state in TERMINAL:
        raise ImpossibleEvent(f"{event} in {state}")
    if state is State.UNDOING:
        if event is not Event.DONE or outcome is None:
            raise ImpossibleEvent(f"{event} in {state}")
        return enter(outcome)
    if event is Event.DONE:
        return enter(_after(state, route))
    if state is State.ANALYSING and event is Event.SUPERSEDED:
        # It has the traffic and nothing is known against it: the newer one starts from here.
        return enter(State.SUPERSEDED)
    return enter(State.UNDOING, _outcome(state, event))


def enter(state: State, outcome: State | None = None) -> Step:
    """A state with the actions that belong to it; also what a restarted agent resumes with."""
    if state is State.UNDOING:
        actions = [Action.SWITCH_BACK, Action.RETIRE_CANDIDATES]
        if outcome in (State.FAILED, State.ROLLED_BACK):
            # Aborting and superseding are commits already; failures have to become one.
            actions.append(Action.RESTORE_DESIRED_STATE)
        return Step(state, tuple(actions), outcome)
    if state in TERMINAL:
        return Step(state, (Action.RECORD_OUTCOME,))
    return Step(state, (WORK[state],))


def resume(state: State, outcome: State | None, *, switched: bool) -> Step:
    """What an agent that was started again goes on with. `switched` tells whether the candidates
    already have the traffic.

    Candidates may have died while nobody watched, so one that has no traffic yet has to prove
    itself again, from STARTING on: a replica that still runs is kept, and a test costs little
    beside a release that was never seen healthy.
    """
    unproven = (State.TESTING, State.HOLDING, State.SWITCHING)
    return enter(State.STARTING if state in unproven and not switched else state, outcome)


def _after(state: State, route: Route) -> State:
    skipped = {
        State.JOBS: not route.jobs,
        State.TESTING: not route.test,
        State.HOLDING: not route.hold,
        State.ANALYSING: not route.analyse,
    }
    following = LINE[LINE.index(state) + 1 :]
    return next(s for s in following if not skipped.get(s, False))


def _outcome(state: State, event: Event) -> State:
    if event is Event.ABORTED:
        return State.ABORTED
    if event is Event.SUPERSEDED:
        return State.SUPERSEDED
    return State.ROLLED_BACK if state is State.ANALYSING else State.FAILED
