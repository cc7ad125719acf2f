"""Every path through an offline upgrade, walked to its end."""

from __future__ import annotations

import itertools

import pytest

from lapwing.kubernetes.upgrade.states import (
    FORWARD,
    SCHEMA_CHANGED,
    TERMINAL,
    UNINTERRUPTIBLE,
    WAY_BACK,
    Event,
    ImpossibleEvent,
    Permission,
    State,
    Step,
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


def test_every_path_ends_and_every_state_is_reached() -> None:
    assert {path[-1] for path in ALL} == TERMINAL - {State.REFUSED}
    assert {state for path in ALL for state in path} == set(State) - {State.REFUSED}


@pytest.mark.parametrize("path", ALL)
def test_migration_needs_a_backup_and_no_connection(path: tuple[State, ...]) -> None:
    if State.MIGRATING in path:
        before = path[: path.index(State.MIGRATING)]
        assert before[-3:] == (State.STOPPING, State.DISCONNECTING, State.BACKING_UP)


@pytest.mark.parametrize("path", ALL)
def test_old_version_starts_only_on_its_own_schema(path: tuple[State, ...]) -> None:
    if State.RESTARTING in path:
        changed = any(state in SCHEMA_CHANGED for state in path)
        assert (State.RESTORING in path) == changed
        assert path.index(State.RESTARTING) == len(path) - 2


@pytest.mark.parametrize(
    ("downtime", "backup"), [(False, False), (True, False), (False, True), (True, True)]
)
def test_pending_migration_needs_consent_and_backup(downtime: bool, backup: bool) -> None:
    after = step(State.PROBING, Event.PENDING, Permission(downtime, backup))
    assert after.state is (State.STOPPING if downtime and backup else State.REFUSED)
    assert (after.state in TERMINAL) == (not (downtime and backup))


def test_uninterruptible_states_cannot_be_aborted() -> None:
    for state in UNINTERRUPTIBLE:
        with pytest.raises(ImpossibleEvent):
            step(state, Event.ABORTED, YES, State.FAILED)


def test_failure_on_the_way_back_keeps_its_state() -> None:
    for state in WAY_BACK:
        after = step(state, Event.FAILED, YES, State.ABORTED)
        assert after == Step(state, State.ABORTED)


def test_terminal_states_take_no_event() -> None:
    for state, event in itertools.product(TERMINAL, Event):
        with pytest.raises(ImpossibleEvent):
            step(state, event, YES)


def test_every_state_is_terminal_or_has_work_on_one_path() -> None:
    with_work = [State.PROBING, *FORWARD[:-1], *WAY_BACK]
    assert sorted([*with_work, *TERMINAL]) == sorted(State)
