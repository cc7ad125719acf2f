"""Every rollout there can be: all routes, all events, all kills, walked to the end.

The machine is small enough to look at whole. A walk keeps what the driver would have done: whether
the candidates run, have passed their tests, were promoted, have the traffic; and it may be killed
and resumed between any two steps.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from lapwing.agent.rollout import (
    LINE,
    LIVE,
    TERMINAL,
    UNINTERRUPTIBLE,
    WATCHED,
    WORK,
    Action,
    Event,
    ImpossibleEvent,
    Route,
    State,
    Step,
    begin,
    enter,
    resume,
    step,
)

ROUTES = [
    Route(jobs=j, test=t, hold=h, analyse=a, afterwards=w)
    for j, t, h, a, w in itertools.product((False, True), repeat=5)
]
IN_PROGRESS = [s for s in State if s not in TERMINAL]


@dataclass(frozen=True)
class World:
    """What a rollout has done so far. `started` is false again after a kill: candidates may have
    died while nobody watched. `crashed`: a candidate exited after it was healthy."""

    now: Step
    resources: bool = False
    jobs: bool = False
    started: bool = False
    crashed: bool = False
    tested: bool = False
    promoted: bool = False
    traffic: bool = False
    retired: bool = False
    restored: bool = False
    recorded: bool = False

    def after_work(self) -> World:
        """The world when all actions of the present step are done."""
        world = self
        for action in self.now.actions:
            world = _DO[action](world)
        return world


_DO = {
    Action.ENSURE_RESOURCES: lambda w: replace(w, resources=True),
    Action.RUN_JOBS: lambda w: replace(w, jobs=True),
    Action.START_CANDIDATES: lambda w: replace(w, started=True),
    Action.TEST_CANDIDATES: lambda w: replace(w, tested=True),
    Action.AWAIT_PROMOTION: lambda w: replace(w, promoted=True),
    Action.SWITCH: lambda w: replace(w, traffic=True),
    Action.ANALYSE: lambda w: w,
    Action.RUN_JOBS_AFTER: lambda w: w,
    Action.SWITCH_BACK: lambda w: replace(w, traffic=False),
    Action.RETIRE_CANDIDATES: lambda w: replace(w, started=False, retired=True),
    Action.RESTORE_DESIRED_STATE: lambda w: replace(w, restored=True),
    Action.RECORD_OUTCOME: lambda w: replace(w, recorded=True),
}


def possible(state: State, *, crashed: bool = False) -> Iterator[Event]:
    """The events that the driver can bring in a state: a switch and an undoing are not interrupted
    by a document, and an undoing always ends. The driver fails a watched state after a crash."""
    if not (crashed and state in {*WATCHED, State.STARTING}):
        yield Event.DONE
    if state is not State.UNDOING:
        yield Event.FAILED
    if state not in UNINTERRUPTIBLE:
        yield from (Event.ABORTED, Event.SUPERSEDED)


def reachable(route: Route) -> set[World]:
    """Every world that a rollout of a route can come to, with kills at every step."""
    seen: set[World] = set()
    todo = [World(begin())]
    while todo:
        world = todo.pop()
        if world in seen:
            continue
        seen.add(world)
        state, outcome = world.now.state, world.now.outcome
        done = world.after_work()
        for switched in {world.traffic, done.traffic}:
            lost = world.started and switched
            found = replace(
                world,
                traffic=switched,
                started=lost,
                tested=world.tested and lost,
                crashed=world.crashed and switched,
            )
            todo.append(replace(found, now=resume(state, outcome, switched=switched)))
        if state in TERMINAL:
            continue
        if world.started and not world.crashed:
            todo.append(replace(world, crashed=True))
        if done.traffic and not world.crashed:
            todo.append(replace(done, crashed=True))
        unswitchable = world.crashed and state is State.SWITCHING and not world.traffic
        for event in [Event.FAILED] if unswitchable else possible(state, crashed=world.crashed):
            # A failure can come before, or after, the switch of this very step has taken effect.
            after = () if unswitchable else (done,)
            for base in after if event is Event.DONE else (world, *after):
                todo.append(replace(base, now=step(state, event, route, outcome)))
    return seen


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_only_verified_candidates_get_traffic(route: Route) -> None:
    for world in reachable(route):
        if Action.SWITCH in world.now.actions and not world.traffic:
            assert world.resources
            assert world.started
            assert world.jobs or not route.jobs
            assert world.tested or not route.test
            assert world.promoted or not route.hold


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_end_states_leave_candidates_switched_or_retired(route: Route) -> None:
    for world in reachable(route):
        if world.now.state in TERMINAL:
            assert world.traffic or world.retired
            kept = world.now.state is State.SUCCEEDED
            assert world.traffic or not kept
            if world.now.state in (State.FAILED, State.ROLLED_BACK):
                assert not world.traffic
                assert world.restored
            if world.now.state is State.ABORTED:
                assert not world.traffic
                assert not world.restored


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_crashed_candidates_neither_get_traffic_nor_succeed(route: Route) -> None:
    """A crash between two looks is found by the next one: before the switch, or in the analysis."""
    for world in reachable(route):
        if world.crashed and world.now.state in LIVE:
            assert world.traffic
            assert Event.DONE not in possible(world.now.state, crashed=True)
        if world.crashed and world.now.state is State.SUCCEEDED:
            assert not route.analyse
            assert not route.afterwards


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_every_state_can_reach_an_end(route: Route) -> None:
    for world in reachable(route):
        now, steps = world.now, 0
        while now.state not in TERMINAL:
            now, steps = step(now.state, Event.DONE, route, now.outcome), steps + 1
            assert steps <= len(LINE)


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_undoing_ends_in_the_decided_outcome(route: Route) -> None:
    for state, event in itertools.product(
        IN_PROGRESS, (Event.FAILED, Event.ABORTED, Event.SUPERSEDED)
    ):
        if state is State.UNDOING:
            continue
        undoing = step(state, event, route)
        if undoing.state is not State.UNDOING:
            assert state in LIVE
            assert event is Event.SUPERSEDED
            continue
        assert undoing.outcome in TERMINAL - {State.SUCCEEDED}
        end = step(undoing.state, Event.DONE, route, undoing.outcome)
        assert end.state is undoing.outcome
        assert end.actions == (Action.RECORD_OUTCOME,)


def test_outcome_of_each_failure() -> None:
    route = Route(jobs=True, test=True, hold=True, analyse=True, afterwards=True)
    for state in WORK:
        failed = State.ROLLED_BACK if state in LIVE else State.FAILED
        assert step(state, Event.FAILED, route).outcome is failed
        assert step(state, Event.ABORTED, route).outcome is State.ABORTED


@pytest.mark.parametrize("state", sorted(LIVE))
def test_superseded_rollout_keeps_its_traffic(state: State) -> None:
    found = step(state, Event.SUPERSEDED, Route(analyse=True, afterwards=True))
    assert (found.state, found.actions) == (State.SUPERSEDED, (Action.RECORD_OUTCOME,))


@pytest.mark.parametrize("route", ROUTES, ids=str)
def test_states_without_work_are_skipped(route: Route) -> None:
    now, passed = begin(), [State.RESOURCES]
    while now.state not in TERMINAL:
        now = step(now.state, Event.DONE, route)
        passed.append(now.state)
    optional = {
        State.JOBS: route.jobs,
        State.TESTING: route.test,
        State.HOLDING: route.hold,
        State.ANALYSING: route.analyse,
        State.AFTERWARDS: route.afterwards,
    }
    assert passed == [s for s in LINE if optional.get(s, True)]


def test_same_state_gives_same_actions() -> None:
    for route in ROUTES:
        for world in reachable(route):
            assert enter(world.now.state, world.now.outcome) == world.now


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("switched", [False, True])
def test_resume(state: State, switched: bool) -> None:
    outcome = State.FAILED if state is State.UNDOING else None
    found = resume(state, outcome, switched=switched)
    unproven = state in (State.TESTING, State.HOLDING, State.SWITCHING) and not switched
    assert found == (enter(State.STARTING) if unproven else enter(state, outcome))


@pytest.mark.parametrize("event", list(Event))
@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_terminal_states_accept_no_event(state: State, event: Event) -> None:
    with pytest.raises(ImpossibleEvent):
        step(state, event, Route())


@pytest.mark.parametrize("event", [Event.FAILED, Event.ABORTED, Event.SUPERSEDED])
def test_undoing_cannot_be_interrupted(event: Event) -> None:
    with pytest.raises(ImpossibleEvent):
        step(State.UNDOING, event, Route(), State.FAILED)


def test_undoing_without_an_outcome_raises() -> None:
    with pytest.raises(ImpossibleEvent):
        step(State.UNDOING, Event.DONE, Route())


def test_every_state_has_actions() -> None:
    assert set(WORK) | TERMINAL | {State.UNDOING} == set(State)
    assert set(_DO) == set(Action)
