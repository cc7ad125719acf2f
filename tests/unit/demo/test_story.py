"""The story fits the example: every edit finds its text, and leaves a program that compiles."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

import pytest

from lapwing.commands.demo import story
from lapwing.commands.demo.stage import IGNORED, find_example
from lapwing.commands.demo.story import Edit
from lapwing.errors import LapwingError, UsageError


def test_every_act_can_be_made_and_compiles(tmp_path: Path) -> None:
    folder = tmp_path / "example"
    shutil.copytree(find_example(), folder, ignore=IGNORED)
    original = (folder / "api/app.py").read_text()
    for edits in (story.ADDED, *(act.edits for act in story.ACTS)):
        before = _text(folder)
        for edit in edits:
            edit.make(folder)
        assert not edits or _text(folder) != before
        for path in folder.glob("api/*.py"):
            ast.parse(path.read_text())
    assert (folder / "api/app.py").read_text() == original + story.REGISTERED


def _text(folder: Path) -> str:
    return "".join(p.read_text() for p in sorted(folder.rglob("*")) if p.suffix in (".py", ".tsx"))


def test_an_example_that_has_changed_is_not_edited_blindly(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one one")
    with pytest.raises(LapwingError, match="does not know this example"):
        Edit("file", "two", "one").make(tmp_path)
    assert (tmp_path / "file").read_text() == "one one"


def test_a_missing_example_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="The example is not in") as error:
        find_example(tmp_path)
    assert "--example" in (error.value.hint or "")


def test_the_slow_release_is_slower_than_the_example_allows() -> None:
    text = (find_example() / "lapwing.yaml").read_text()
    assert "max_p95: 500ms" in text
    assert story.SLOWNESS > 0.5
