"""What a demo says of itself, from made-up acts."""

from __future__ import annotations

import pytest

from lapwing.commands.demo.result import Result, StepResult
from lapwing.load.record import Exchange, Ledger


def results(outcome: str, moments: dict[str, float], **more: str) -> StepResult:
    facts = {"name": "an act", "verb": "deploy", "expected": outcome, "old": "a", "new": "b"}
    return StepResult(
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


def test_switch_time_is_from_commit_to_confirmation() -> None:
    assert results("succeeded", GOOD).to_switch == pytest.approx(1.05)
    assert results("succeeded", GOOD).to_roll_back is None


def test_unswitched_step_has_no_times() -> None:
    act = results("failed", {"starting": 100.1, "undoing": 101.0, "failed": 101.1})
    assert (act.to_switch, act.to_roll_back) == (None, None)
    result = Result(results=(act,), ledger=Ledger(), seconds=1.0)
    assert (result.seen(act), result.seen_back(act)) == (None, None)


def test_rollback_time_of_command_and_of_analysis() -> None:
    assert results("rolled-back", BAD).to_roll_back == pytest.approx(0.2)
    moments = {"switching": 100.2, "succeeded": 100.25}
    assert results("succeeded", moments, verb="rollback").to_roll_back == pytest.approx(0.25)


def test_rolled_back_step_has_both_switches() -> None:
    act = results("rolled-back", BAD)
    answers = [(100.9, "a"), (101.02, "b"), (102.0, "b"), (103.04, "a"), (104.0, "a")]
    ledger = Ledger([exchange(*answer) for answer in answers])
    result = Result(results=(act,), ledger=ledger, seconds=1.0)
    there, back = result.seen(act), result.seen_back(act)
    assert there is not None
    assert back is not None
    assert (there.delay, there.window) == (pytest.approx(0.02), 0.0)
    assert (back.delay, back.window) == (pytest.approx(0.04), 0.0)


def test_failed_request_fails_the_demo() -> None:
    act = results("succeeded", GOOD)
    fine = [exchange(100.0, "a"), exchange(102.0, "b")]
    assert Result(results=(act,), ledger=Ledger(fine), seconds=1.0).good
    spoilt = [*fine, exchange(103.0, "b", "status 502")]
    result = Result(results=(act,), ledger=Ledger(spoilt), seconds=1.0)
    assert not result.good
    assert result.as_json()["failed"] == 1
    assert result.as_json()["failures"][0]["failure"] == "status 502"


def test_unexpected_outcome_fails_the_demo() -> None:
    act = results("failed", {}, expected="succeeded")
    assert not Result(results=(act,), ledger=Ledger(), seconds=1.0).good
