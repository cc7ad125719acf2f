"""The same seed gives the same rounds."""

from __future__ import annotations

import itertools

from tests.chaos.plan import FAULTS, STACKS, STATES, Round, rounds

CYCLE = sum(FAULTS.values())


def first(seed: int, count: int = CYCLE) -> list[Round]:
    return list(itertools.islice(rounds(seed), count))


def test_seed_replays_its_rounds() -> None:
    assert [str(r) for r in first(7)] == [str(r) for r in first(7)]
    assert first(7, 3) == first(7)[:3]
    assert first(7) != first(8)


def test_each_cycle_has_every_fault() -> None:
    assert {r.fault for r in first(1)} == set(FAULTS)
    assert {r.fault for r in first(1, CYCLE * 2)[CYCLE:]} == set(FAULTS)


def test_moment_is_one_that_the_action_reaches() -> None:
    for found in first(1, 200):
        assert len(found.actions) == len(STACKS)
        action = found.actions[found.stack]
        assert isinstance(found.moment, float) or found.moment in STATES[action]
