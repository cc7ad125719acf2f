"""Builds that hang, are interrupted, killed, run twice, or meet a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from lapwing import settings as lapwing_settings
from lapwing.build import layers
from lapwing.build.builder import BuildResult, build
from lapwing.build.command import BuildLog, run
from lapwing.build.context import BuildRequest
from lapwing.errors import BuildError, NoSpaceError
from tests.failed_builds import failed_build
from tests.needs import require

from .conftest import Tree, Yard
from .test_node import files

MakeYard = Callable[[dict[str, str]], Yard]
HANGS = "node -e \"require('fs').writeFileSync(process.env.MARK, ''); setInterval(() => 0, 1000)\""
BUILD = """
import sys
from pathlib import Path
from lapwing import settings
from lapwing.build.builder import build
from lapwing.build.context import BuildRequest
request = BuildRequest("s", "api", Path(sys.argv[1]), static="dist", env={"MARK": sys.argv[2]})
build(request, settings.read())
"""


def until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.02)


def below(home: Path) -> list[psutil.Process]:
    """The processes that work in a home or were started with its name."""
    found = []
    for process in psutil.process_iter():
        try:
            place = " ".join([process.cwd(), *process.cmdline()])
        except psutil.Error:
            continue
        if str(home) in place and process.pid != os.getpid():
            found.append(process)
    return found


@pytest.fixture
def hanging(make_yard: MakeYard) -> Yard:
    require("node")
    return make_yard(files({"build": HANGS}))


@pytest.fixture
def started(hanging: Yard, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Python of its own with a build that hangs in its script."""
    mark = tmp_path / "mark"
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, str(hanging.tree.folder), str(mark)],
        env={**os.environ, "LAPWING_HOME": str(hanging.settings.home)},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(mark.exists)
        yield process
    finally:
        process.kill()
        process.wait()
        for left in below(hanging.settings.home):
            left.kill()


def test_a_build_that_hangs(hanging: Yard, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="timed out") as caught:
        hanging.build(static="dist", timeout=8.0, env={"MARK": str(tmp_path / "mark")})
    assert (tmp_path / "mark").exists(), "it was not the script that hung"
    assert "timeout" in str(caught.value.hint)
    assert below(hanging.settings.home) == []
    assert hanging.left() == []


def test_ctrl_c(hanging: Yard, started: subprocess.Popen[bytes]) -> None:
    started.send_signal(signal.SIGINT)
    assert started.wait(30) != 0
    assert below(hanging.settings.home) == []
    assert hanging.left() == []
    assert not list(hanging.settings.releases.rglob("release.json"))


def test_kill(hanging: Yard, started: subprocess.Popen[bytes], tmp_path: Path) -> None:
    started.kill()
    started.wait()
    for left in below(hanging.settings.home):
        left.kill()  # The build itself outlives a kill -9 of Lapwing; here it has to end as well.
    assert len(hanging.left()) == 1
    with pytest.raises(BuildError):
        hanging.build(static="dist", timeout=3.0, env={"MARK": str(tmp_path / "mark")})
    assert hanging.left() == []


def test_a_command_that_ignores_sigterm_and_its_children(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 1000 & echo $! > pid; echo asleep; wait"
    error = failed_build(tmp_path, script, seconds=1)
    assert "timed out" in error.message
    assert error.detail == "asleep"
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


def test_a_child_that_keeps_the_output_open_does_not_hold_the_build(tmp_path: Path) -> None:
    log = BuildLog(tmp_path / "log")
    began = time.monotonic()
    run(
        ["/bin/sh", "-c", "sleep 1000 & echo $! > pid; printf done"],
        folder=tmp_path,
        environ={"PATH": os.defpath},
        log=log,
        until=began + 100,
        doing="It",
    )
    log.close()
    assert time.monotonic() - began < 50
    assert list(log.lines) == ["done"]
    pid = int((tmp_path / "pid").read_text())
    until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie")


@pytest.mark.parametrize("line", ["cp: x: No space left on device", "npm error code ENOSPC"])
def test_a_command_that_meets_a_full_disk(tmp_path: Path, line: str) -> None:
    log = BuildLog(tmp_path / "log")
    with pytest.raises(NoSpaceError):
        run(
            ["/bin/sh", "-c", f"echo '{line}'; exit 1"],
            folder=tmp_path,
            environ={},
            log=log,
            until=time.monotonic() + 60,
            doing="It",
        )
    log.close()


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    log = BuildLog(tmp_path / "log")
    with pytest.raises(BuildError, match="cannot be started"):
        run(["/nonexistent"], folder=tmp_path, environ={}, log=log, until=9e9, doing="It")
    log.close()


def test_the_same_twice_at_once(make_yard: MakeYard) -> None:
    yard = make_yard({"requirements.txt": "six==1.17.0\n", "app.py": ""})
    results: list[BuildResult] = []
    threads = [threading.Thread(target=lambda: results.append(yard.build())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({r.release.name for r in results}) == 1
    assert sorted(r.reused for r in results) == [False, True, True]
    assert len(list(yard.settings.releases.rglob("release.json"))) == 1
    assert yard.left() == []


def test_two_makers_of_one_layer(tmp_path: Path) -> None:
    made: list[int] = []

    def fill(folder: Path) -> None:
        made.append(1)
        (folder / "a").write_text("a")

    target = tmp_path / "layers" / "x"
    threads = [threading.Thread(target=layers.make, args=(target, fill)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("needs root, to mount a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk(small_disk: Path, tree: Tree) -> None:
    tree.write({"index.html": "x", "big.bin": "x" * 3 * 2**20})
    tree.commit()
    settings = lapwing_settings.read({**os.environ, "LAPWING_HOME": str(small_disk / "home")})
    request = BuildRequest("s", "web", tree.folder, static=".")
    with pytest.raises(NoSpaceError, match="web: the disk is full"):
        build(request, settings)
    assert not list(small_disk.rglob(".tmp-*"))
    tree.write({"big.bin": "small"})
    assert not build(request, settings).reused


def test_a_full_disk_for_uv(small_disk: Path, tree: Tree) -> None:
    tree.write({"requirements.txt": "flask\n"})
    tree.commit()
    settings = lapwing_settings.read({**os.environ, "LAPWING_HOME": str(small_disk / "home")})
    with pytest.raises(NoSpaceError):
        build(BuildRequest("s", "api", tree.folder), settings)
    assert not list(small_disk.rglob(".tmp-*"))


def test_a_home_that_cannot_be_written(tree: Tree, tmp_path: Path) -> None:
    tree.write({"index.html": "x"})
    tree.commit()
    (tmp_path / "home").write_text("a file, where a folder should be")
    settings = lapwing_settings.read({**os.environ, "LAPWING_HOME": str(tmp_path / "home")})
    with pytest.raises(BuildError, match=r"web: access to .* failed") as caught:
        build(BuildRequest("s", "web", tree.folder, static="."), settings)
    assert str(tmp_path / "home") in str(caught.value.hint)
