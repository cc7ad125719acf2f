"""`lapwing demo` as people call it: the whole of it, and interrupted at bad moments."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.installation import LAPWING
from tests.needs import require

PATIENCE = 900.0


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files with a short path."""
    with tempfile.TemporaryDirectory(prefix="lw-") as folder:
        yield Path(folder)


def start(temporary: Path, *options: str) -> subprocess.Popen[str]:
    """The demo as a process, with a home that it must not touch."""
    environ = {
        **{k: v for k, v in os.environ.items() if not k.startswith("LAPWING_")},
        "LAPWING_HOME": str(temporary / "own"),
        "TMPDIR": str(temporary),
        "NO_COLOR": "1",
    }
    log = (temporary / "said").open("w")
    return subprocess.Popen(
        [LAPWING, "demo", *options], stdout=subprocess.PIPE, stderr=log, text=True, env=environ
    )


def wait_until_said(temporary: Path, word: str, process: subprocess.Popen[str]) -> None:
    said = temporary / "said"
    until(lambda: word in said.read_text() or process.poll() is not None)
    assert word in said.read_text(), said.read_text()


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def nothing_is_left(temporary: Path) -> None:
    """No folder and no process of the demo is left, and the user's home was not touched."""
    assert [p.name for p in temporary.iterdir()] == ["said"], sorted(map(str, temporary.rglob("*")))
    assert [c for p in psutil.process_iter() if str(temporary) in (c := _facts(p))] == []


def _facts(process: psutil.Process) -> str:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return ""
        return " ".join([*process.cmdline(), *map(str, process.environ().values())])
    except psutil.Error:
        return ""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_no_request_fails_in_the_whole_demo(temporary: Path) -> None:
    require("node")
    process = start(temporary, "--output", "json")
    answer, _ = process.communicate()
    said = (temporary / "said").read_text()
    assert process.returncode == 0, said + answer
    result = json.loads(answer)
    assert (result["failed"], result["raced"]) == (0, 0)
    assert result["sent"] > 1000
    acts = {act["name"]: act for act in result["acts"]}
    assert [act["outcome"] for act in result["acts"]] == [
        "succeeded",
        "failed",
        "rolled-back",
        "succeeded",
        "succeeded",
    ]
    answered = result["versions"]
    assert acts["a broken change"]["new"] not in answered
    assert acts["a slow change"]["new"] in answered
    assert acts["a good change"]["switch"]["window"] is not None
    assert acts["a rollback"]["new"] == acts["a good change"]["new"]
    assert {t["kind"] for t in result["traffic"]} == {
        "new", "keep-alive", "slow", "body", "page", "events",
    }  # fmt: skip
    nothing_is_left(temporary)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_build_leaves_nothing(temporary: Path, number: signal.Signals) -> None:
    process = start(temporary)
    wait_until_said(temporary, "building api", process)
    process.send_signal(number)
    process.communicate()
    assert process.returncode == 130
    nothing_is_left(temporary)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_interruption_under_load_leaves_nothing(temporary: Path) -> None:
    require("node")
    process = start(temporary)
    wait_until_said(temporary, "starting api green", process)
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert process.returncode == 130
    nothing_is_left(temporary)


def test_missing_example_is_reported(temporary: Path) -> None:
    process = start(temporary, "--example", str(temporary))
    process.communicate()
    assert process.returncode == 2
    assert "make demo" in (temporary / "said").read_text()
