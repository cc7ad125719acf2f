"""The table that a demo ends with."""

from __future__ import annotations

import io

from lapwing.cli.demo import _show
from lapwing.cli.output import Printer
from lapwing.commands.demo.result import Result, StepResult
from lapwing.load.record import Exchange, Ledger


def results(name: str, verb: str, outcome: str, new: str, moments: dict[str, float]) -> StepResult:
    return StepResult(
        name=name,
        verb=verb,
        outcome=outcome,
        expected=outcome,
        reason=None,
        commit="c",
        old="api-1",
        new=new,
        committed=100.0,
        moments=moments,
    )


def shown(*failures: str | None) -> list[str]:
    acts = (
        results(
            "a good change", "deploy", "succeeded", "api-2", {"switching": 101, "analysing": 102}
        ),
        results("a broken change", "deploy", "failed", "api-3", {"undoing": 101, "failed": 102}),
    )
    versions = ["api-1", "api-2", "api-2", "index"]
    exchanges = [
        Exchange(kind="new", began=100 + n, sent=100 + n, ended=100.5 + n, version=v)
        for n, v in enumerate(versions)
    ]
    exchanges += [Exchange(kind="new", began=110, sent=110, ended=110, failure=f) for f in failures]
    out = io.StringIO()
    result = Result(results=acts, ledger=Ledger(exchanges), seconds=30.0)
    _show(result, Printer(out=out, err=io.StringIO()))
    return out.getvalue().splitlines()


def test_tables_show_requests_responses_and_times() -> None:
    lines = shown()
    assert "new      4     0       500 ms" in lines
    assert "the first release  api-1    1" in lines
    assert "a good change      api-2    2" in lines
    assert "the page           index    1" in lines
    assert "a broken change    api-3    0" in lines
    assert "a good change    succeeded  2000 ms           0 ms        0 ms     -" in lines
    assert "a broken change  failed     -                 -           -        -" in lines
    assert lines[-1] == "4 requests, 0 failed, in 30 s."


def test_failed_requests_are_listed() -> None:
    lines = shown("status 502")
    assert "  failed: new, status 502, by ?" in lines
    assert lines[-1] == "5 requests, 1 failed, in 30 s."
