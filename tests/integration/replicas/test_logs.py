"""Logs of processes: bounded by their writer, whether an agent runs or not, also on a full disk."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lapwing.agent import logs, processes, termination
from lapwing.agent.processes import Launch
from tests.deployed import until
from tests.needs import require

CHATTY = """
import sys
for number in range(int(sys.argv[1])):
    print(f"{number:08d} " + "x" * 90, flush=number % 100 == 0)
print("the end")
sys.exit(7)
"""


def run(log: Path, lines: int) -> str | None:
    launch = Launch((sys.executable, "-c", CHATTY, str(lines)), {}, Path("/"))
    return asyncio.run(termination.run(launch, log, timeout=60))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", 100_000)
    return 100_000


def test_last_line_is_in_the_log_when_the_exit_is_reported(tmp_path: Path) -> None:
    for _ in range(5):
        assert run(tmp_path / "run" / "a.log", 3) == "exited with status 7"
        assert logs.tail(tmp_path / "run" / "a.log", 1) == "the end"
    assert (tmp_path / "run" / "a.log").stat().st_mode & 0o777 == 0o600
    assert len(logs.tail(tmp_path / "run" / "a.log", 99).splitlines()) == 20


def test_log_exists_when_the_process_has_started(tmp_path: Path) -> None:
    descriptor, writer = logs.open_writer(tmp_path / "a.log")
    try:
        assert (tmp_path / "a.log").stat().st_mode & 0o777 == 0o600
    finally:
        os.close(descriptor)
        writer.wait(timeout=60)


def test_log_never_exceeds_its_limit(tmp_path: Path, small: int) -> None:
    log, old = tmp_path / "a.log", tmp_path / "a.log.1"
    assert run(log, 12_345) == "exited with status 7"
    assert log.stat().st_size <= small
    assert small - 4096 < old.stat().st_size <= small
    lines = (old.read_bytes() + log.read_bytes()).splitlines()[1:]
    numbers = [int(line[:8]) for line in lines[:-1]]
    assert numbers == list(range(numbers[0], 12_345)), "no line is lost in a rotation"
    assert lines[-1] == b"the end"


def test_writer_needs_no_gnu_programs(tmp_path: Path) -> None:
    busybox, log = require("busybox"), tmp_path / "a.log"
    for name in ("dd", "mv", "rm", "wc"):
        (tmp_path / name).symlink_to(busybox)
    lines = [f"{number:08d}".encode() for number in range(20_000)]
    writer = (busybox, "sh", "-c", logs._WRITER, "lapwing-log", log, "100000")
    text = b"\n".join(lines)
    subprocess.run(writer, input=text, env={"PATH": str(tmp_path)}, check=True, timeout=60)
    parts = (tmp_path / "a.log.1").read_bytes(), log.read_bytes()
    assert text.endswith(b"".join(parts))
    assert 95_904 < len(parts[0]) <= 100_000
    assert len(parts[1]) <= 100_000


def test_log_that_is_emptied_or_removed_does_not_end_the_process(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    launch = Launch(("/bin/sh", "-c", "while echo tick; do sleep 0.02; done"), {}, Path("/"))
    identity = processes.spawn(launch, log)
    try:
        until(lambda: log.exists() and log.stat().st_size > 0, "a line")
        os.truncate(log, 0)
        until(lambda: log.stat().st_size > 0, "a line after it was emptied")
        log.unlink()
        log.parent.rmdir()
        assert processes.alive(identity)
    finally:
        asyncio.run(termination.kill(identity))


def test_writer_ends_with_the_last_process(tmp_path: Path) -> None:
    launch = Launch(("/bin/sh", "-c", "sleep 0.5 & exit 3"), {}, Path("/"))
    identity = processes.spawn(launch, tmp_path / "a.log")
    writer = processes.log_writers[identity.pid]
    assert asyncio.run(processes.ended(identity)) == "exited with status 3"
    writer.wait(30)


def test_killed_dd_loses_no_older_or_later_line(tmp_path: Path) -> None:
    log, old = tmp_path / "a.log", tmp_path / "a.log.1"
    old.write_text("older\n")
    descriptor, writer = logs.open_writer(log)
    try:
        for number in range(5):
            os.write(descriptor, f"{number}\n".encode())
            until(lambda number=number: f"{number}\n" in log.read_text(), "a line")
            [dd] = psutil.Process(writer.pid).children()
            dd.kill()
            until(lambda dd=dd: not dd.is_running(), "the end of dd")
    finally:
        os.close(descriptor)
    assert writer.wait(timeout=60) == 0
    assert (old.read_text(), log.read_text()) == ("older\n", "0\n1\n2\n3\n4\n")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    require("tmpfs")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=2m", "lapwing-test", folder]
    subprocess.run(mounted, check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk_costs_log_lines_only(disk: Path, small: int) -> None:
    (disk / "filler").write_bytes(bytes(2**21 - 40_000))
    assert run(disk / "run" / "a.log", 20_000) == "exited with status 7"
    assert (disk / "run" / "a.log").stat().st_size < 40_000
    (disk / "filler").unlink()
    assert run(disk / "run" / "a.log", 3) == "exited with status 7"
    assert logs.tail(disk / "run" / "a.log", 1) == "the end"
