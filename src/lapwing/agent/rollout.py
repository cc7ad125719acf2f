"""The life of one deployment, as a function from (state, event) to (state, actions).

A rollout deploys all changed services of one commit together. Its states, in order, each with the
work that completes it:

    RESOURCES  start databases and caches
    JOBS       run migrations
    STARTING   start the candidates in the idle slots until they are healthy
    TESTING    run smoke tests on the preview host
    HOLDING    wait for a promotion
    SWITCHING  route to all candidates at once, confirmed by Envoy
    ANALYSING  compare Envoy's counters with the limits for the analysis window
    AFTERWARDS run the jobs with `after`
    SUCCEEDED

A state without work (no jobs, no pause) is skipped. Any failure, abort or newer deployment leads to
UNDOING, which does the same in every case: routes back to the old slots, candidates drained and
stopped, the desired state restored. UNDOING cannot be interrupted; it ends in the outcome that was
decided when it was entered.

Nothing here acts. The driver (`environment.py`) persists the state, performs the actions and
returns with an event. After a crash the same state gives the same actions again, so every action is
idempotent. A model check (`tests/unit/agent/test_rollout.py`) explores every path.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class State(StrEnum):
    """The state of a rollout."""

    RESOURCES = "resources"
    JOBS = "jobs"
    STARTING = "starting"
    TESTING = "testing"
    HOLDING = "holding"
    SWITCHING = "switching"
    ANALYSING = "analysing"
    AFTERWARDS = "afterwards"
    UNDOING = "undoing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ROLLED_BACK = "rolled-back"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"


class Event(StrEnum):
    """What can happen to a rollout."""

    DONE = "done"
    """The work of the present state is complete (HOLDING: promoted; UNDOING: undone)."""
    FAILED = "failed"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"


class Action(StrEnum):
    """What the driver has to perform."""

    ENSURE_RESOURCES = "ensure-resources"
    RUN_JOBS = "run-jobs"
    START_CANDIDATES = "start-candidates"
    TEST_CANDIDATES = "test-candidates"
    AWAIT_PROMOTION = "await-promotion"
    SWITCH = "switch"
    ANALYSE = "analyse"
    RUN_JOBS_AFTER = "run-jobs-after"
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
    State.AFTERWARDS,
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
    State.AFTERWARDS: Action.RUN_JOBS_AFTER,
}
UNINTERRUPTIBLE = frozenset({State.SWITCHING, State.UNDOING})
"""States that last milliseconds and are completed before an abort or a newer deployment."""
LIVE = frozenset({State.ANALYSING, State.AFTERWARDS})
"""States in which the candidates have the traffic."""
PUBLISHED = LIVE | {State.STARTING, State.TESTING, State.HOLDING, State.SWITCHING}
"""States in which the host names of the new document are served or previewed."""
WATCHED = LIVE | {State.TESTING, State.HOLDING}
"""States in which a candidate that exits or stops being ready fails the rollout, even if its
replica is restarted. In STARTING the start itself fails; SWITCHING checks before it acts."""


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The optional states that this rollout goes through."""

    jobs: bool = False
    test: bool = False
    hold: bool = False
    analyse: bool = False
    afterwards: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """The state after an event, its actions and, in UNDOING, the outcome it will end in."""

    state: State
    actions: tuple[Action, ...]
    outcome: State | None = None


class ImpossibleEvent(Exception):
    """An event that is impossible in this state: a bug in the driver."""


def begin() -> Step:
    """Return the first step of a rollout."""
    return enter(State.RESOURCES)


def step(state: State, event: Event, route: Route, outcome: State | None = None) -> Step:
    """Return the step after an event. `outcome` is the one decided when UNDOING was entered.

    Raises ImpossibleEvent for any event in a terminal state, and for all but DONE in UNDOING.
    """
    if state in TERMINAL:
        raise ImpossibleEvent(f"{event} in {state}")
    if state is State.UNDOING:
        if event is not Event.DONE or outcome is None:
            raise ImpossibleEvent(f"{event} in {state}")
        return enter(outcome)
    if event is Event.DONE:
        return enter(_after(state, route))
    if state in LIVE and event is Event.SUPERSEDED:
        # It has the traffic and no limit was exceeded: the newer deployment starts from here.
        return enter(State.SUPERSEDED)
    return enter(State.UNDOING, _outcome(state, event))


def enter(state: State, outcome: State | None = None) -> Step:
    """Return a state with its actions."""
    if state is State.UNDOING:
        actions = [Action.SWITCH_BACK, Action.RETIRE_CANDIDATES]
        if outcome in (State.FAILED, State.ROLLED_BACK):
            # An abort or a newer deployment is a commit already; a failure needs a revert commit.
            actions.append(Action.RESTORE_DESIRED_STATE)
        return Step(state, tuple(actions), outcome)
    if state in TERMINAL:
        return Step(state, (Action.RECORD_OUTCOME,))
    return Step(state, (WORK[state],))


def resume(state: State, outcome: State | None, *, switched: bool) -> Step:
    """Return the step with which a restarted agent continues.

    `switched` says whether the candidates already have the traffic.

    Candidates without traffic may have died meanwhile, so they are verified again from STARTING on.
    Replicas that are still running are kept.
    """
    unproven = (State.TESTING, State.HOLDING, State.SWITCHING)
    return enter(State.STARTING if state in unproven and not switched else state, outcome)


def _after(state: State, route: Route) -> State:
    skipped = {
        State.JOBS: not route.jobs,
        State.TESTING: not route.test,
        State.HOLDING: not route.hold,
        State.ANALYSING: not route.analyse,
        State.AFTERWARDS: not route.afterwards,
    }
    following = LINE[LINE.index(state) + 1 :]
    return next(s for s in following if not skipped.get(s, False))


def _outcome(state: State, event: Event) -> State:
    if event is Event.ABORTED:
        return State.ABORTED
    if event is Event.SUPERSEDED:
        return State.SUPERSEDED
    return State.ROLLED_BACK if state in LIVE else State.FAILED
