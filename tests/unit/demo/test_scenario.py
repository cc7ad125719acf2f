"""The scenario fits the example: every edit finds its text, and leaves a program that compiles."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from lapwing.commands.demo import scenario
from lapwing.commands.demo.sandbox import IGNORED, find_example
from lapwing.commands.demo.scenario import Edit
from lapwing.errors import LapwingError, UsageError


def test_edits_apply_and_compile(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    shutil.copytree(find_example(), folder, ignore=IGNORED)
    original = (folder / "api/app.py").read_text()
    for edits in (scenario.ADDED, *(act.edits for act in scenario.STEPS)):
        before = _text(folder)
        for edit in edits:
            edit.make(folder)
        assert not edits or _text(folder) != before
        for path in folder.glob("api/*.py"):
            ast.parse(path.read_text())
    assert (folder / "api/app.py").read_text() == original + scenario.REGISTERED


def _text(folder: Path) -> str:
    return "".join(p.read_text() for p in sorted(folder.rglob("*")) if p.suffix in (".py", ".tsx"))


def test_changed_example_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one one")
    with pytest.raises(LapwingError, match="does not fit the demo"):
        Edit("file", "two", "one").make(tmp_path)
    assert (tmp_path / "file").read_text() == "one one"


def test_missing_example_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not contain the example") as error:
        find_example(tmp_path)
    assert "--example" in (error.value.hint or "")


def test_slow_release_exceeds_latency_limit() -> None:
    text = (find_example() / "lapwing.yaml").read_text()
    assert "max_p95: 500ms" in text
    assert scenario.DELAY_S > 0.5
