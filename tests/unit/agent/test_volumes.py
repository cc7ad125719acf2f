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
