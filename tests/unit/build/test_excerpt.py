"""The excerpt of real logs of failed builds: each folder has a log and what is shown of it.

To write the excerpts anew: LAPWING_REWRITE=1 pytest tests/unit/build/test_excerpt.py
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.build.command import MOST, excerpt

LOGS = Path(__file__).parent / "logs"
CAUSES = {
    "no-tool": "nosuchtool: not found",
    "node-throws": "Error: the widget is missing",
    "npm-not-found": "react-x-none",
    "npm-out-of-sync": "Missing: left-pad@1.3.0 from lock file",
    "npm-postinstall": "fatal: compiler exploded",
    "setup-py": "ModuleNotFoundError: No module named 'nosuchmodule'",
    "tsc": "src/main.tsx(2,7): error TS2322: Type 'string' is not assignable",
    "uv-hash": "Hash mismatch for `six==1.17.0`",
    "uv-no-package": "nosuchpackage-xyz was not found",
    "uv-unsatisfiable": "flask==3.0.0 depends on werkzeug>=3.0.0",
    "vite": "Could not resolve './nothing' in src/main.tsx",
}
"""What a person has to see, for each log."""


def test_every_log_has_its_cause() -> None:
    assert sorted(p.name for p in LOGS.iterdir()) == sorted(CAUSES)


@pytest.mark.parametrize("name", sorted(CAUSES))
def test_golden(name: str) -> None:
    shown = excerpt((LOGS / name / "log").read_text().split("\n"))
    expected = LOGS / name / "excerpt"
    if os.environ.get("LAPWING_REWRITE"):
        expected.write_text(shown + "\n")
    assert shown + "\n" == expected.read_text()
    assert CAUSES[name] in shown
    assert "debug-0.log" not in shown
    assert "--install-strategy" not in shown


def test_the_end_without_a_word_of_trouble() -> None:
    lines = [f"line {n}" for n in range(100)]
    assert excerpt(lines).split("\n") == lines[-MOST:]


def test_a_count_of_no_errors_is_no_trouble() -> None:
    lines = ["found 0 errors", *["fine"] * 50, "src/a.ts: error: it broke", "and so on"]
    assert excerpt(lines).split("\n") == ["fine", "fine", *lines[-2:]]


def test_a_long_one_keeps_the_exception_at_its_end() -> None:
    frames = [f'  File "a.py", line {n}' for n in range(200)]
    shown = excerpt(["Traceback (most recent call last):", *frames, "KeyError: 'PORT'"]).split("\n")
    assert len(shown) == MOST
    assert shown[0].startswith("Traceback")
    assert shown[-1] == "KeyError: 'PORT'"
    assert "..." in shown


def test_colours_and_rewritten_lines_are_gone() -> None:
    assert excerpt(["10 %\r20 %\r\x1b[31merror\x1b[0m: no\x07"]) == "error: no"


def test_a_line_without_end_is_cut() -> None:
    assert len(excerpt(["error " + "x" * 10_000])) < 400


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=60), max_size=120))
def test_bounded_for_any_output(lines: list[str]) -> None:
    assert len(excerpt(lines).split("\n")) <= MOST
