"""Volumes, and files that a process wrote into its release."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lapwing.agent import volumes
from lapwing.build.release import RECORD
from lapwing.errors import ReplicaError


def test_file_deleted_during_the_walk_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / RECORD).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / RECORD).touch()
    os.utime(tmp_path / RECORD, (1, 1))
    (tmp_path / "app").mkdir()
    (tmp_path / "app/kept.txt").touch()
    walked = [(str(tmp_path / "app"), [], ["deleted.txt", "kept.txt"])]
    monkeypatch.setattr(os, "walk", lambda _folder: walked)
    assert volumes.written(tmp_path) == ["kept.txt"]


def test_replicas_that_start_together_create_a_volume_once(tmp_path: Path) -> None:
    initial = tmp_path / "release"
    initial.mkdir()
    names = {f"{number}.txt" for number in range(50)}
    for name in names:
        (initial / name).touch()
    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            place = tmp_path / "data" / f"volume.{number}"
            list(pool.map(lambda _, place=place: volumes.ensure(place, initial), range(8)))
            assert {f.name for f in place.iterdir()} == names


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
    assert volumes.advice("app", used, tmp_path, [file]).startswith(expected)


def test_advice_names_one_volume_for_each_place(tmp_path: Path) -> None:
    files = ["a.db", "a.db-wal", "b.db", "uploads/x.png", "uploads/y.png"]
    assert volumes.advice("app", {"data": "./data"}, tmp_path, files) == (
        "Add `data-2: ./a.db` to `volumes` of app. Add `data-3: ./b.db` to `volumes` of app. "
        "Add `uploads: ./uploads` to `volumes` of app."
    )


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("GET /\nPermissionError: [Errno 13] Permission denied: 'uploads'\n", "PermissionError: "),
        ("Error: EACCES: permission denied, mkdir 'uploads'\n    at fs.js", "Error: EACCES"),
        ("sqlite3.OperationalError: unable to open database file", "sqlite3.Operational"),
        ("SqliteError: attempt to write a readonly database", "SqliteError"),
        ("GET /permission 403", None),
    ],
)
def test_log_shows_that_a_write_was_refused(log: str, line: str | None) -> None:
    found = volumes.refused(log)
    assert found is None if line is None else found and found.startswith(line)


def test_dangling_link_to_a_removed_volume_is_replaced(tmp_path: Path) -> None:
    """As `rm -r` of an old LAPWING_HOME leaves it. A link to anything else is not touched."""
    link, place = tmp_path / "srv", tmp_path / "home/data/a/local/volume.shared"
    place.mkdir(parents=True)
    link.symlink_to(tmp_path / "old/data/a/local/volume.shared")
    volumes.link(link, place, "shared")
    assert link.readlink() == place
    other = tmp_path / "other"
    other.symlink_to(tmp_path / "nothing")
    with pytest.raises(ReplicaError, match="the path exists and is not a link to this volume"):
        volumes.link(other, place, "shared")
    assert other.readlink() == tmp_path / "nothing"
