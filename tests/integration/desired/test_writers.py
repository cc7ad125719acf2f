"""Several writers at once, and writers that are killed: nothing is lost, and no lock stays."""

from __future__ import annotations

import contextlib
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
from tests.unit.agent.samples import document, service

PATIENCE = 120.0


@pytest.fixture
def repository(tmp_path: Path) -> DesiredRepository:
    return DesiredRepository(tmp_path / "desired.git")


def begin(repository: DesiredRepository, name: str, times: int) -> subprocess.Popen[str]:
    """Begin a writer."""
    module = "tests.integration.desired.writer"
    return subprocess.Popen(
        [sys.executable, "-m", module, str(repository.path), name, str(times)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_every_commit_of_several_writers_is_one_deployment(repository: DesiredRepository) -> None:
    """They begin with no repository, so making it is a race, too."""
    writers = [begin(repository, name, 5) for name in ("ada", "bob", "cyd")]
    said = [w.communicate(timeout=PATIENCE)[0].splitlines() for w in writers]
    assert [w.returncode for w in writers] == [0, 0, 0], said
    made = {line for lines in said for line in lines[:-1]}
    entries = history(repository, "shop", "local", limit=100)
    assert {e.commit for e in entries} == made
    assert len(entries) == 15
    assert {e.outcome for e in entries} == {"succeeded"}
    parents = repository.git.text("log", "--format=%P", "refs/heads/main").split()
    assert parents == [e.commit for e in entries[1:]], "one line, nothing beside it"
    assert repository.verify() == []


def test_of_two_that_know_the_same_commit_one_is_told(repository: DesiredRepository) -> None:
    """The message says what to do, and the loser has changed nothing."""
    first = repository.commit(document(api=service("api-1")), expected=None)
    second = repository.commit(document(api=service("api-2")), expected=first)
    objects = repository.git.text("count-objects")
    with pytest.raises(ConflictError) as caught:
        repository.commit(document(api=service("api-3")), expected=first)
    assert "Another deployment of shop/local was committed first" in caught.value.message
    assert "lapwing history" in (caught.value.hint or "")
    assert repository.head() == second
    assert repository.git.text("count-objects") == objects


def test_writers_of_two_environments_do_not_disturb_each_other(
    repository: DesiredRepository,
) -> None:
    first = repository.commit(document(api=service("api-1")), expected=None)
    staging = msgspec.structs.replace(document(api=service("api-9")), environment="staging")
    other = repository.commit(staging, expected=None)
    second = repository.commit(document(api=service("api-2")), expected=first)
    assert repository.newest("shop", "local") == second
    assert repository.newest("shop", "staging") == other
    assert repository.environments() == [("shop", "local"), ("shop", "staging")]


def test_a_lock_of_a_git_that_was_killed_is_cleared(repository: DesiredRepository) -> None:
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
    """Kill a writer, and the git that works for it, some time after its first commit; returns the
    commits that it told of."""
    writer = begin(repository, name, 1000)
    assert writer.stdout is not None
    first = writer.stdout.readline()
    time.sleep(delay)
    workers = psutil.Process(writer.pid).children(recursive=True)
    writer.kill()
    for worker in workers:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker.kill()
    rest, _ = writer.communicate(timeout=PATIENCE)
    return [line for line in [first.strip(), *rest.splitlines()] if len(line) == 40]


@pytest.mark.parametrize("delay", [0.0, 0.003, 0.011, 0.017])
def test_a_writer_that_is_killed_loses_nothing_that_it_told_of(
    repository: DesiredRepository, delay: float
) -> None:
    """Whatever it was doing: what it told of is there, the next writer can write at once."""
    told = kill_while_writing(repository, delay)
    assert repository.verify() == []
    entries = [e.commit for e in history(repository, "shop", "local", limit=1000)]
    assert set(told) <= set(entries)
    newest = repository.newest("shop", "local")
    made = repository.commit(document(api=service("api-next")), expected=newest)
    repository.record_outcome(made, "succeeded")
    assert repository.verify() == []


@pytest.mark.slow
def test_fifty_writers_that_are_killed(repository: DesiredRepository) -> None:
    import random

    chance = random.Random(1)
    told: list[str] = []
    for number in range(50):
        told += kill_while_writing(repository, chance.uniform(0, 0.05), f"eve-{number}")
        assert repository.verify() == []
    entries = {e.commit for e in history(repository, "shop", "local", limit=100_000)}
    assert set(told) <= entries
