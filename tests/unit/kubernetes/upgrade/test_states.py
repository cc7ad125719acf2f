"""Every path through an offline upgrade, walked to its end."""

from __future__ import annotations

import itertools

import pytest

from lapwing.kubernetes.upgrade.states import (
    CHANGED,
    LINE,
    TERMINAL,
    UNINTERRUPTIBLE,
    WAY_BACK,
    Action,
    Event,
    ImpossibleEvent,
    Permission,
    State,
    enter,
    step,
)

YES = Permission(downtime=True, backup=True)


def walks(state: State, outcome: State | None, path: tuple[State, ...]) -> list[tuple[State, ...]]:
    """All paths from a state; a failure on the way back is met once and not again."""
    if state in TERMINAL:
        return [path]
    found = []
    for event in Event:
        try:
            after = step(state, event, YES, outcome)
        except ImpossibleEvent:
            continue
        if after.state is not state:
            found += walks(after.state, after.outcome, (*path, after.state))
    return found


ALL = walks(State.PROBING, None, (State.PROBING,))


def test_every_path_ends_and_every_state_is_met() -> None:
    assert {path[-1] for path in ALL} == TERMINAL - {State.REFUSED}
    assert {state for path in ALL for state in path} == set(State) - {State.REFUSED}


@pytest.mark.parametrize("path", ALL)
def test_nothing_is_migrated_without_a_backup_or_with_a_connection(path: tuple[State, ...]) -> None:
    if State.MIGRATING in path:
        before = path[: path.index(State.MIGRATING)]
        assert before[-3:] == (State.STOPPING, State.DISCONNECTING, State.BACKING_UP)


@pytest.mark.parametrize("path", ALL)
def test_the_old_version_starts_only_on_its_own_schema(path: tuple[State, ...]) -> None:
    if State.RESTARTING in path:
        changed = any(state in CHANGED for state in path)
        assert (State.RESTORING in path) == changed
        assert path.index(State.RESTARTING) == len(path) - 2


@pytest.mark.parametrize(
    ("downtime", "backup"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_a_pending_migration_needs_consent_and_a_backup(downtime: bool, backup: bool) -> None:
    after = step(State.PROBING, Event.PENDING, Permission(downtime, backup))
    assert after.state is (State.STOPPING if downtime and backup else State.REFUSED)
    assert (after.action is None) == (not (downtime and backup))


def test_what_may_not_be_interrupted_is_not() -> None:
    for state in UNINTERRUPTIBLE:
        with pytest.raises(ImpossibleEvent):
            step(state, Event.ABORTED, YES, State.FAILED)


def test_a_failure_on_the_way_back_stays_where_it_is() -> None:
    for state in WAY_BACK:
        after = step(state, Event.FAILED, YES, State.ABORTED)
        assert after == enter(state, State.ABORTED)


def test_terminal_states_take_no_event_and_ask_for_nothing() -> None:
    for state, event in itertools.product(TERMINAL, Event):
        assert enter(state).action is None
        with pytest.raises(ImpossibleEvent):
            step(state, event, YES)


def test_every_action_belongs_to_one_state() -> None:
    done = [enter(s).action for s in (State.PROBING, *LINE[:-1], *WAY_BACK)]
    assert sorted(a for a in done if a) == sorted(Action)
