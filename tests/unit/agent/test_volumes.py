"""Files that a process wrote into its release."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lapwing.agent import volumes
from lapwing.build.release import RECORD


def test_file_deleted_during_the_walk_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / RECORD).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / RECORD).touch()
    os.utime(tmp_path / RECORD, (1, 1))
    (tmp_path / "app").mkdir()
    (tmp_path / "app/kept.txt").touch()
    walked = [(str(tmp_path / "app"), [], ["deleted.txt", "kept.txt"])]
    monkeypatch.setattr(volumes.os, "walk", lambda _folder: walked)
    assert volumes.written(tmp_path) == ["kept.txt"]


@pytest.mark.parametrize(
    ("file", "used", "expected"),
    [
        ("uploads/newcomer-f.txt", {}, "Add `uploads: ./uploads` to `volumes` of app."),
        ("static/uploads/1/a.png", {"uploads": "./u"}, "Add `uploads-2: ./static/uploads` to"),
        ("My_Files/a.txt", {}, "Add `my-files: ./My_Files` to"),
        ("notes.db", {"data": "./data"}, "Add `data-2: ./notes.db` to"),
        ("shop/notes.sqlite3-wal", {}, "Add `data: ./shop/notes.sqlite3` to"),
        ("stray.txt", {}, "Write it to a folder such as `data`: add `data: ./data` to"),
        ("shop/stray.txt", {}, "Write it to a folder such as `data`: add `data: ./data` to"),
    ],
)
def test_advice_names_a_volume_that_keeps_the_file(
    tmp_path: Path, file: str, used: dict[str, str], expected: str
) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/code.py").touch()
    assert volumes.advice("app", used, tmp_path, file).startswith(expected)
