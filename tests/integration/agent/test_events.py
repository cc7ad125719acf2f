"""The event log under rotation, a full disk and a power cut: who follows it misses nothing."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from lapwing.observed import status
from lapwing.observed.status import Event, Follower

ON_A_FULL_DISK = """
import pathlib, resource, signal, sys
from lapwing.observed import status
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    status.append(pathlib.Path(sys.argv[1]), status.Event(time=2.0, kind="note", text="2"))
except OSError as error:
    sys.exit(error.errno)
"""


def event(number: int) -> Event:
    return Event(time=float(number), kind="note", text=f"{number}")


def texts(follower: Follower) -> list[str]:
    return [e.text for e in follower.read()]


def test_follower_skips_earlier_events(tmp_path: Path) -> None:
    status.append(tmp_path, event(0))
    follower = Follower(tmp_path)
    status.append(tmp_path, event(1))
    assert texts(follower) == ["1"]
    assert texts(follower) == []


def test_follower_created_before_the_log(tmp_path: Path) -> None:
    follower = Follower(tmp_path / "new")
    assert texts(follower) == []
    status.append(tmp_path / "new", event(1))
    assert texts(follower) == ["1"]


def test_rotation_loses_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event that makes the log too long is moved away with it, and it may be the last one for
    a long time: the outcome that somebody waits for."""
    status.append(tmp_path, event(0))
    follower = Follower(tmp_path)
    status.append(tmp_path, event(1))
    monkeypatch.setattr(status, "MAX_EVENTS_BYTES", 1)
    status.append(tmp_path, event(2))
    assert not (tmp_path / "events.jsonl").exists()
    assert texts(follower) == ["1", "2"]
    assert texts(follower) == []
    monkeypatch.undo()
    status.append(tmp_path, event(3))
    assert texts(follower) == ["3"]


def test_rotation_between_two_reads_loses_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status.append(tmp_path, event(0))
    follower = Follower(tmp_path)
    monkeypatch.setattr(status, "MAX_EVENTS_BYTES", 1)
    status.append(tmp_path, event(1))
    monkeypatch.undo()
    status.append(tmp_path, event(2))
    assert texts(follower) == ["1", "2"]


def test_constant_rotation_loses_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer is never more than a hundred events ahead, less than one file holds: a follower
    cannot know of two rotations between two looks."""
    monkeypatch.setattr(status, "MAX_EVENTS_BYTES", 10_000)
    follower, found, number = Follower(tmp_path), list[str](), 1000
    room = threading.Semaphore(100)

    def write() -> None:
        for index in range(number):
            room.acquire()
            status.append(tmp_path, event(index))

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive() or len(found) < number:
        new = texts(follower)
        if not new and not writer.is_alive():
            new = texts(follower)
            if not new:
                break
        found += new
        for _ in new:
            room.release()
    writer.join()
    assert found == [str(index) for index in range(number)]


def test_invalid_lines_are_skipped(tmp_path: Path) -> None:
    follower = Follower(tmp_path)
    status.append(tmp_path, event(1))
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"time":2,"kind":"no' + bytes(40) + b"\n\xff\n[]\n")
    status.append(tmp_path, event(3))
    assert texts(follower) == ["1", "3"]


def test_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the kernel writes as much as fits."""
    follower = Follower(tmp_path)
    status.append(tmp_path, event(1))
    size = (tmp_path / "events.jsonl").stat().st_size
    done = subprocess.run(
        [sys.executable, "-c", ON_A_FULL_DISK, tmp_path, str(size + 10)], check=False
    )
    assert done.returncode == errno.ENOSPC
    assert (tmp_path / "events.jsonl").stat().st_size == size
    status.append(tmp_path, event(3))
    assert texts(follower) == ["1", "3"]
