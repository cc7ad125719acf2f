"""What clients saw of a switch, from made-up exchanges."""

from __future__ import annotations

import pytest

from lapwing.load.figures import switch
from lapwing.load.record import Exchange, Kind, Ledger


def exchange(
    sent: float,
    version: str | None,
    *,
    took: float = 0.01,
    kind: Kind = "keep-alive",
    failure: str | None = None,
) -> Exchange:
    return Exchange(
        kind=kind, began=sent, sent=sent, ended=sent + took, version=version, failure=failure
    )


def test_no_overlap_is_a_window_of_zero() -> None:
    ledger = Ledger([exchange(10.0, "a"), exchange(10.1, "a"), exchange(10.2, "b")])
    found = switch(ledger, "a", "b", began=10.05)
    assert found.window == 0.0
    assert found.delay == pytest.approx(0.15)
    assert (found.first_new, found.last_old) == (10.2, 10.1)
    assert found.spacing == pytest.approx(0.1)


def test_the_window_is_the_time_in_which_both_answered() -> None:
    ledger = Ledger([exchange(10.0, "b"), exchange(10.004, "a"), exchange(10.007, "b")])
    assert switch(ledger, "a", "b", began=9.99).window == pytest.approx(0.004)


def test_a_slow_answer_of_the_old_version_to_an_earlier_request_is_no_overlap() -> None:
    ledger = Ledger([exchange(10.0, "a", took=5.0, kind="slow"), exchange(10.1, "b")])
    found = switch(ledger, "a", "b", began=10.0)
    assert found.window == 0.0
    assert found.longest == pytest.approx(0.01)


def test_a_version_that_comes_again_is_seen_once_for_each_switch() -> None:
    versions = [(10.0, "a"), (11.0, "b"), (12.0, "b"), (13.0, "a"), (14.0, "b")]
    ledger = Ledger([exchange(sent, version) for sent, version in versions])
    first = switch(ledger, "a", "b", began=10.5, until=12.5)
    assert (first.first_new, first.window) == (11.0, 0.0)
    back = switch(ledger, "b", "a", began=12.5, until=13.5)
    assert (back.first_new, back.last_old) == (13.0, 12.0)


def test_a_switch_that_no_request_saw_has_no_figures() -> None:
    found = switch(Ledger([exchange(10.0, "a")]), "a", "b", began=10.5)
    assert (found.window, found.delay, found.longest) == (None, None, None)


def test_a_request_that_hangs_over_the_switch_is_the_longest_wait() -> None:
    ledger = Ledger([exchange(10.0, "a", took=0.4), exchange(10.3, "b"), exchange(15, "b", took=3)])
    assert switch(ledger, "a", "b", began=10.1).longest == pytest.approx(0.4)


def test_totals_count_failures_and_who_answered() -> None:
    ledger = Ledger(
        [
            exchange(1, "a"),
            exchange(2, "b", took=0.5),
            exchange(3, "b", failure="status 500"),
            exchange(4, None, failure="no connection", kind="new"),
        ]
    )
    keep_alive, new = ledger.totals()
    assert (keep_alive.kind, keep_alive.sent, keep_alive.failed) == ("keep-alive", 3, 1)
    assert keep_alive.versions == {"a": 1, "b": 2}
    assert keep_alive.longest == pytest.approx(0.5)
    assert (new.sent, new.failed, new.versions) == (1, 1, {})
    assert [e.failure for e in ledger.failures] == ["status 500", "no connection"]
    assert ledger.between(2, 4).sent == 2
