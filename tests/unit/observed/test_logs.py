"""Logs of replicas: their end and what is added, across rotations, with the time of each line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lapwing.observed import logs
from lapwing.observed.logs import LogReader, TimeKeeper


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "api" / "blue-3.0.log"
    path.parent.mkdir()
    return path


def append(log: Path, text: str, at: int) -> None:
    with log.open("a") as file:
        file.write(text)
    os.utime(log, (at, at))


def rotate(log: Path) -> None:
    log.rename(logs.older(log))


def texts(lines: list[logs.Line]) -> list[str]:
    return [line.text for line in lines]


def test_end_includes_the_part_before_a_rotation(log: Path) -> None:
    append(log, "one\ntwo\nthr", at=10)
    rotate(log)
    append(log, "ee\nfour\n", at=20)
    assert texts(LogReader(log).tail(99)) == ["one", "two", "three", "four"]
    assert texts(LogReader(log).tail(2)) == ["three", "four"]
    assert texts(LogReader(log).tail(0)) == []


@pytest.mark.parametrize("count", [1, 999, 1000, 5000])
def test_end_of_a_long_log(log: Path, count: int) -> None:
    lines = [f"{number} " + "x" * (number % 300) for number in range(2000)]
    append(log, "\n".join(lines[:1100]) + "\n", at=1)
    rotate(log)
    append(log, "\n".join(lines[1100:]), at=2)
    assert texts(LogReader(log).tail(count)) == lines[-count:]


@pytest.mark.parametrize("text", ["", "\n", "\n\na\n", "a", "a\n\n", "x" * 70_000 + "\ny"])
def test_empty_lines_are_kept(log: Path, text: str) -> None:
    append(log, text, at=1)
    expected = text.split("\n")[:-1] if text.endswith("\n") else text.split("\n") if text else []
    assert texts(LogReader(log).tail(99)) == expected


def test_new_lines_are_read_across_rotations_and_once(log: Path) -> None:
    append(log, "old\nunfin", at=1)
    reader = LogReader(log)
    assert texts(reader.tail(99, follow=True)) == ["old"]
    append(log, "ished\nnext\n", at=2)
    assert texts(reader.new()) == ["unfinished", "next"]
    append(log, "before\n", at=3)
    rotate(log)
    append(log, "after\n", at=4)
    assert texts(reader.new()) == ["before", "after"]
    assert reader.new() == []
    os.truncate(log, 0)
    append(log, "x\n", at=5)
    assert texts(reader.new()) == ["x"]


def test_each_line_has_the_time_of_the_first_look_after_it(log: Path) -> None:
    keeper = TimeKeeper()
    for at, text in ((100, "a\nb\n"), (200, "c\n"), (300, "rotated ")):
        append(log, text, at)
        keeper.note([(log, "r1")])
    rotate(log)
    append(log, "line\nd\n", at=400)
    keeper.note([(log, "r1"), (log.with_name("missing.log"), "r1")])
    append(log, "not noted\n", at=500)
    found = LogReader(log).tail(99)
    assert [(line.moment // 10**9, line.text) for line in found] == [
        (100, "a"), (100, "b"), (200, "c"), (400, "rotated line"), (400, "d"), (500, "not noted"),
    ]  # fmt: skip
    assert {line.source for line in found} == {"api blue-3.0 r1"}
    assert log.with_name(log.name + ".times").stat().st_mode & 0o777 == 0o600


def test_log_without_notes_has_the_time_of_its_last_write(log: Path) -> None:
    append(log, "a\n", at=7)
    assert LogReader(log).tail(1) == [logs.Line(7 * 10**9, "a", "api blue-3.0")]


def test_emptied_log_does_not_keep_earlier_times(log: Path) -> None:
    keeper = TimeKeeper()
    append(log, "long line\n", at=100)
    keeper.note([(log, "r1")])
    os.truncate(log, 0)
    append(log, "short\n", at=200)
    keeper.note([(log, "r1")])
    assert [line.moment // 10**9 for line in LogReader(log).tail(9)] == [200]


def test_notes_are_bounded(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_TIMES_BYTES", 2000)
    keeper = TimeKeeper()
    for number in range(1000):
        append(log, f"{number}\n", at=1000 + number)
        keeper.note([(log, "r1")])
    times = log.with_name(log.name + ".times")
    assert times.stat().st_size < 2100
    found = LogReader(log).tail(1000)
    moments = [line.moment for line in found]
    assert moments == sorted(moments)
    assert found[-1] == logs.Line(1999 * 10**9, "999", "api blue-3.0 r1")


def test_logs_of_present_and_newest_generations_are_shown(log: Path) -> None:
    for at, name in enumerate(("blue-1.0", "green-2.0", "blue-3.0", "blue-3.1", "green-4.0")):
        append(log.with_name(f"{name}.log"), "x\n", at=10 + at)
    append(log.with_name("blue-5.0.log"), "", at=30)

    def shown(*generations: str) -> list[str]:
        return [path.stem for path in logs.shown(log.parent, generations)]

    assert shown() == ["green-4.0", "blue-3.1", "blue-3.0"]
    assert shown("blue-1") == ["green-4.0", "blue-1.0"]
    assert shown("blue-1", "green-2") == ["green-4.0", "green-2.0", "blue-1.0"]
    assert shown("green-4", "blue-1", "blue-5") == ["green-4.0", "blue-3.1", "blue-3.0", "blue-1.0"]
