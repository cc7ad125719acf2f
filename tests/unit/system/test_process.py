"""A command is bounded in time and output, and nothing that it started outlives it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lapwing.system import process
from tests.deployed import until
from tests.needs import require

ENVIRON = {"PATH": os.environ["PATH"]}


def sh(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def gone(pid: int) -> bool:
    """Whether a process ends within five seconds."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


def test_run_returns_status_and_both_outputs(tmp_path: Path) -> None:
    script = "pwd; echo $GIVEN; echo wrong >&2; exit 3"
    done = process.run(sh(script), {**ENVIRON, "GIVEN": "x"}, timeout=20, folder=tmp_path)
    assert done == process.Completed(3, f"{tmp_path}\nx\n".encode(), "wrong\n")


def test_run_drops_output_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MAX_OUTPUT_BYTES", 1000)
    done = process.run(sh("head -c 300000 /dev/zero"), ENVIRON, timeout=20)
    assert done.status == 0
    assert len(done.stdout) == 1000


def test_timeout_ends_the_command_and_its_children(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/pid; trap '' TERM; wait"
    with pytest.raises(TimeoutError):
        process.run(sh(script), ENVIRON, timeout=0.5)
    assert gone(int((tmp_path / "pid").read_text()))


def test_background_child_does_not_delay_or_outlive_the_command(tmp_path: Path) -> None:
    began = time.monotonic()
    done = process.run(sh(f"sleep 60 & echo $! > {tmp_path}/pid"), ENVIRON, timeout=30)
    assert done.status == 0
    assert time.monotonic() - began < 10
    assert gone(int((tmp_path / "pid").read_text()))


def test_command_of_a_killed_caller_ends(tmp_path: Path) -> None:
    require("pdeathsig")
    caller = f"""
from lapwing.system import process
process.run(["/bin/sh", "-c", "echo $$ > {tmp_path}/pid; exec sleep 600"], {{}}, timeout=600)
"""
    killed = subprocess.Popen([sys.executable, "-c", caller], start_new_session=True)
    try:
        until((tmp_path / "pid").exists)
        pid = int(until((tmp_path / "pid").read_text))
    finally:
        killed.kill()
        killed.wait()
    until(lambda: gone(pid), "the end of the command")


def test_missing_program_raises_file_not_found() -> None:
    with pytest.raises(FileNotFoundError):
        process.run(["/nonexistent/program"], ENVIRON, timeout=1)


def test_run_lines_passes_lines_on_at_once(tmp_path: Path) -> None:
    lines: list[tuple[str, float]] = []
    status = process.run_lines(
        sh("echo one; sleep 1; printf 'two\\r\\n' >&2; printf three; exit 4"),
        ENVIRON,
        lambda line: lines.append((line, time.monotonic())),
        deadline=time.monotonic() + 20,
        folder=tmp_path,
    )
    assert status == 4
    assert [line for line, _ in lines] == ["one", "two", "three"]
    assert lines[1][1] - lines[0][1] > 0.5


def test_run_lines_splits_overlong_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MAX_LINE_BYTES", 100)
    lines: list[str] = []
    process.run_lines(
        sh("head -c 1000 /dev/zero | tr '\\0' x"),
        ENVIRON,
        lines.append,
        deadline=time.monotonic() + 20,
        folder=tmp_path,
    )
    assert "".join(lines) == "x" * 1000
    assert max(map(len, lines)) < 300
