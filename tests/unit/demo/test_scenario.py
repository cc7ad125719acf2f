"""The scenario fits the example: every edit finds its text, and leaves a program that compiles."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from lapwing.commands.demo import scenario
from lapwing.commands.demo.sandbox import IGNORED, copy_example, find_example
from lapwing.commands.demo.scenario import Edit
from lapwing.errors import LapwingError, UsageError
from tests.installation import GIT


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


def test_demo_uses_the_example_as_it_is_committed(tmp_path: Path) -> None:
    """Neither changed nor new nor deleted files of the user are in the copy."""
    example = tmp_path / "clone" / "examples" / "company-inc"
    example.mkdir(parents=True)
    (example / "lapwing.yaml").write_text("stack: committed\n")
    (example / "app.py").write_text("committed")
    environ = {**os.environ, **GIT}
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "A change"]):
        subprocess.run(["git", *arguments], cwd=tmp_path / "clone", env=environ, check=True)
    (example / "lapwing.yaml").write_text("stack: changed\n")
    (example / "app.py").unlink()
    (example / "new.py").write_text("new")
    for committed, stack, files in (
        (True, "committed", ["app.py", "lapwing.yaml"]),
        (False, "changed", ["lapwing.yaml", "new.py"]),
    ):
        copy = tmp_path / stack
        copy_example(example, copy, environ, committed=committed)
        assert (copy / "lapwing.yaml").read_text() == f"stack: {stack}\n"
        assert sorted(p.name for p in copy.iterdir()) == files


def test_example_without_git_is_copied_as_it_is(tmp_path: Path) -> None:
    example = tmp_path / "example"
    example.mkdir()
    (example / "lapwing.yaml").write_text("stack: shop\n")
    environ = {**os.environ, **GIT, "GIT_CEILING_DIRECTORIES": str(tmp_path)}
    copy_example(example, tmp_path / "copy", environ, committed=True)
    assert (tmp_path / "copy" / "lapwing.yaml").exists()


def test_slow_release_exceeds_latency_limit() -> None:
    text = (find_example() / "lapwing.yaml").read_text()
    assert "max_p95: 500ms" in text
    assert scenario.DELAY_S > 0.5
