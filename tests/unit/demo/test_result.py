"""What a demo says of itself, from made-up acts."""

from __future__ import annotations

import pytest

from lapwing.commands.demo.result import Played, Result
from lapwing.load.record import Exchange, Ledger


def played(outcome: str, moments: dict[str, float], **more: str) -> Played:
    facts = {"name": "an act", "verb": "deploy", "expected": outcome, "old": "a", "new": "b"}
    return Played(
        **{**facts, **more},  # type: ignore[arg-type]
        outcome=outcome,
        reason=None,
        commit="c",
        committed=100.0,
        moments=moments,
    )


def exchange(sent: float, version: str, failure: str | None = None) -> Exchange:
    return Exchange(
        kind="new", began=sent, sent=sent, ended=sent + 0.01, version=version, failure=failure
    )


GOOD = {"starting": 100.1, "switching": 101.0, "analysing": 101.05, "succeeded": 111.0}
BAD = {"switching": 101.0, "analysing": 101.05, "undoing": 103.0, "rolled-back": 103.2}


def test_a_deployment_is_timed_from_its_commit_to_its_confirmed_switch() -> None:
    assert played("succeeded", GOOD).to_switch == pytest.approx(1.05)
    assert played("succeeded", GOOD).to_roll_back is None


def test_what_was_never_switched_has_no_times() -> None:
    act = played("failed", {"starting": 100.1, "undoing": 101.0, "failed": 101.1})
    assert (act.to_switch, act.to_roll_back) == (None, None)
    result = Result(played=(act,), ledger=Ledger(), seconds=1.0)
    assert (result.seen(act), result.seen_back(act)) == (None, None)


def test_a_rollback_is_timed_whoever_asked_for_it() -> None:
    assert played("rolled-back", BAD).to_roll_back == pytest.approx(0.2)
    moments = {"switching": 100.2, "succeeded": 100.25}
    assert played("succeeded", moments, verb="rollback").to_roll_back == pytest.approx(0.25)


def test_clients_see_both_ways_of_an_act_that_is_taken_back() -> None:
    act = played("rolled-back", BAD)
    answers = [(100.9, "a"), (101.02, "b"), (102.0, "b"), (103.04, "a"), (104.0, "a")]
    ledger = Ledger([exchange(*answer) for answer in answers])
    result = Result(played=(act,), ledger=ledger, seconds=1.0)
    there, back = result.seen(act), result.seen_back(act)
    assert there is not None
    assert back is not None
    assert (there.delay, there.window) == (pytest.approx(0.02), 0.0)
    assert (back.delay, back.window) == (pytest.approx(0.04), 0.0)


def test_one_failed_request_spoils_it() -> None:
    act = played("succeeded", GOOD)
    fine = [exchange(100.0, "a"), exchange(102.0, "b")]
    assert Result(played=(act,), ledger=Ledger(fine), seconds=1.0).good
    spoilt = [*fine, exchange(103.0, "b", "status 502")]
    result = Result(played=(act,), ledger=Ledger(spoilt), seconds=1.0)
    assert not result.good
    assert result.as_json()["failed"] == 1
    assert result.as_json()["failures"][0]["failure"] == "status 502"


def test_an_act_that_came_out_otherwise_spoils_it() -> None:
    act = played("failed", {}, expected="succeeded")
    assert not Result(played=(act,), ledger=Ledger(), seconds=1.0).good
