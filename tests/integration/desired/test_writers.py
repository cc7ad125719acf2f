"""Concurrent and killed writers lose no commit and leave no lock."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from lapwing.desired.history import history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import ConflictError
from tests.deployed import until
from tests.needs import require
from tests.unit.agent.samples import document, service

TIMEOUT_S = 120.0


@pytest.fixture
def repository(tmp_path: Path) -> DesiredRepository:
    return DesiredRepository(tmp_path / "desired.git")


def start_writer(repository: DesiredRepository, name: str, times: int) -> subprocess.Popen[str]:
    """Start a writer in a process."""
    module = "tests.integration.desired.writer"
    return subprocess.Popen(
        [sys.executable, "-m", module, str(repository.path), name, str(times)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_each_commit_of_concurrent_writers_is_one_deployment(repository: DesiredRepository) -> None:
    """There is no repository at first, so they also compete to create it."""
    writers = [start_writer(repository, name, 5) for name in ("ada", "bob", "cyd")]
    outputs = [w.communicate(timeout=TIMEOUT_S)[0].splitlines() for w in writers]
    assert [w.returncode for w in writers] == [0, 0, 0], outputs
    commits = {line for lines in outputs for line in lines[:-1]}
    entries = history(repository, "shop", "local", limit=100)
    assert {e.commit for e in entries} == commits
    assert len(entries) == 15
    assert {e.outcome for e in entries} == {"succeeded"}
    parents = repository.git.text("log", "--format=%P", "refs/heads/main").split()
    assert parents == [e.commit for e in entries[1:]], "the history is linear"
    assert repository.verify() == []


def test_second_commit_on_the_same_base_raises_conflict(repository: DesiredRepository) -> None:
    """The message states what to do, and the repository is unchanged."""
    first = repository.commit(document(api=service("api-1")), expected=None)
    second = repository.commit(document(api=service("api-2")), expected=first)
    objects = repository.git.text("count-objects")
    with pytest.raises(ConflictError) as caught:
        repository.commit(document(api=service("api-3")), expected=first)
    assert "Another deployment of shop/local was committed first" in caught.value.message
    assert "lapwing history" in (caught.value.hint or "")
    assert repository.head() == second
    assert repository.git.text("count-objects") == objects


def test_commit_of_the_present_document_is_the_newest_one(repository: DesiredRepository) -> None:
    """As of two `abort` in a row: no agent would apply a commit that changes nothing."""
    first = repository.commit(document(api=service("api-1")), expected=None)
    assert repository.commit(document(api=service("api-1")), expected=first) == first
    assert repository.head() == first
    files, wanted = {"local/manifests/a.yaml": b"kind: Service\n"}, document(api=service("api-2"))
    second = repository.commit(wanted, expected=first, files=files)
    assert repository.commit(wanted, expected=second, files=files) == second
    assert repository.head() == second != first


def test_commits_to_two_environments_do_not_conflict(
    repository: DesiredRepository,
) -> None:
    first = repository.commit(document(api=service("api-1")), expected=None)
    staging = msgspec.structs.replace(document(api=service("api-9")), environment="staging")
    other = repository.commit(staging, expected=None)
    second = repository.commit(document(api=service("api-2")), expected=first)
    assert repository.newest("shop", "local") == second
    assert repository.newest("shop", "staging") == other
    assert repository.environments() == [("shop", "local"), ("shop", "staging")]


def test_lock_files_of_a_killed_git_are_removed(repository: DesiredRepository) -> None:
    first = repository.commit(document(api=service("api-1")), expected=None)
    for name in (
        "HEAD.lock",
        "packed-refs.lock",
        "refs/heads/main.lock",
        "refs/notes/lapwing.lock",
    ):
        lock = repository.path / name
        lock.parent.mkdir(parents=True, exist_ok=True)
        lock.touch()
    repository.commit(document(api=service("api-2")), expected=first)
    repository.record_outcome(first, "succeeded")
    assert [e.outcome for e in history(repository, "shop", "local")] == ["in-progress", "succeeded"]
    assert list(repository.path.rglob("*.lock")) == [repository.path / "lapwing.lock"]


def kill_while_writing(repository: DesiredRepository, delay: float, name: str = "eve") -> list[str]:
    """Kill a writer and its git after its first commit; return the commits that it reported."""
    writer = start_writer(repository, name, 1000)
    assert writer.stdout is not None
    first = writer.stdout.readline()
    time.sleep(delay)
    process = psutil.Process(writer.pid)
    process.suspend()  # So that it starts no other git meanwhile.
    processes = [process, *process.children(recursive=True)]
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    rest, _ = writer.communicate(timeout=TIMEOUT_S)
    assert psutil.wait_procs(processes, TIMEOUT_S)[1] == []
    return [line for line in [first.strip(), *rest.splitlines()] if len(line) == 40]


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.011, 0.017])
def test_killed_writer_keeps_every_reported_commit(
    repository: DesiredRepository, delay: float
) -> None:
    """The next writer can also commit at once."""
    reported = kill_while_writing(repository, delay)
    assert repository.verify() == []
    entries = [e.commit for e in history(repository, "shop", "local", limit=1000)]
    assert set(reported) <= set(entries)
    newest = repository.newest("shop", "local")
    commit = repository.commit(document(api=service("api-next")), expected=newest)
    repository.record_outcome(commit, "succeeded")
    assert repository.verify() == []


SLOW_GIT = """#!/bin/sh
case " $* " in
    *" @COMMAND@ "*) echo $$ > @PID@.new; mv @PID@.new @PID@; exec sleep 600;;
esac
exec git "$@"
"""


@pytest.mark.parametrize("command", ["fast-import", "notes"])
def test_git_of_a_killed_writer_ends(
    repository: DesiredRepository, tmp_path: Path, command: str
) -> None:
    require("pdeathsig")
    pid, wrapper = tmp_path / "pid", tmp_path / "bin" / "git"
    wrapper.parent.mkdir()
    text = SLOW_GIT.replace("@COMMAND@", command).replace("@PID@", str(pid))
    wrapper.write_text(text.replace("exec git", f"exec {shutil.which('git')}"))
    wrapper.chmod(0o755)
    code = f"""
from lapwing.system import git
git._NO_CONFIGURATION["PATH"] = "{wrapper.parent}:" + git._NO_CONFIGURATION["PATH"]
from tests.integration.desired import writer
writer.main({str(repository.path)!r}, "zoe", 1)
"""
    killed = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    try:
        until(pid.exists, "the slow git")
        git = psutil.Process(int(pid.read_text()))
    finally:
        killed.kill()
        killed.wait(TIMEOUT_S)
    git.wait(TIMEOUT_S)
    newest = repository.newest("shop", "local")
    repository.commit(document(api=service("api-next")), expected=newest)
    assert repository.verify() == []


@pytest.mark.slow
def test_fifty_killed_writers_keep_every_reported_commit(repository: DesiredRepository) -> None:
    import random

    chance = random.Random(1)
    reported: list[str] = []
    for number in range(50):
        reported += kill_while_writing(repository, chance.uniform(0, 0.05), f"eve-{number}")
        assert repository.verify() == []
    entries = {e.commit for e in history(repository, "shop", "local", limit=100_000)}
    assert set(reported) <= entries
