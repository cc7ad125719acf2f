"""Ctrl-C at any moment of a restore: either it is cancelled, or it is completed."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
import subprocess
from collections.abc import Iterator

import pytest

from lapwing.observed import agent
from lapwing.plan.model import Document
from tests.deployed import until
from tests.installation import installation
from tests.integration.crash.moments import Moments

from .conftest import Yard

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("interrupted-restores")]
BACKUP = 'environments: {local: {backup: {every: "0 4 * * *", keep: 2, to: "@TO@"}}}'
STEP = 5
"""Each of these many writes is a moment that is tried."""


class Restored:
    """A stack with one file in a volume, which has `before` since a backup and is changed later."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        where = yard.where
        yard.stack(more=BACKUP.replace("@TO@", str(where.home.parent / "to")))
        path = where.folder / "lapwing.yaml"
        text = path.read_text().replace(
            "route: /\n", "route: /\n    volumes: {uploads: ./uploads}\n"
        )
        path.write_text(re.sub("analysis: {.*}", "analysis: false", text))
        yard.write("first")
        where.run("up")
        self.file = where.settings.volume("faults", "local", "uploads", "./uploads") / "a.txt"
        self.file.write_text("before")
        self.backup = where.run("backup").stdout.strip()

    def begin(self) -> subprocess.Popen[str]:
        """Change the file, and begin to restore it."""
        self.file.write_text("after")
        return self.yard.where.begin("restore", "uploads", self.backup, "--yes")

    def newest(self) -> Document:
        """The document of the newest commit."""
        found = self.yard.repository.latest_valid(self.yard.name, "local")
        assert found is not None
        return found

    def end(self, restore: subprocess.Popen[str]) -> tuple[int, str]:
        """Wait for the end of a restore and of the start; return its status and its messages."""
        messages = restore.communicate()[1]
        until(lambda: self.yard.status()["services"][0]["phase"] == "running", "the start")
        until(lambda: self.yard.history()[0]["outcome"] == "succeeded", "the outcome")
        assert self.yard.status()["problem"] is None
        assert self.yard.get().text == "first"
        records = self.yard.where.home.glob("data/*/*/.restore.json")
        assert [*records] == []
        return restore.returncode, messages


@pytest.fixture(scope="module")
def restored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restored]:
    with installation(tmp_path_factory.mktemp("restored")) as where:
        yield Restored(Yard(where))


def test_ctrl_c_at_any_moment(restored: Restored) -> None:
    """The data is that of the backup, or all that was there before.

    An interrupt at another write of the agent, before the restore has begun, cancels nothing.
    """
    ended = set()
    for number in itertools.count(1, STEP):
        head = restored.yard.repository.head()
        restore = restored.begin()
        interrupt = lambda r=restore: r.send_signal(signal.SIGINT)  # noqa: E731
        where = restored.yard.where
        moments = Moments(where.settings, restored.yard.environment, number, interrupt)
        status, messages = restored.end(restore)
        moments.end()
        data = restored.file.read_text()
        if status == 0:
            assert data == "before"
        else:
            assert status == 130
            is_complete = "continues in the background" in messages
            is_begun = restored.yard.repository.head() != head
            assert is_begun or not is_complete, messages
            is_cancelled = "The restore is cancelled" in messages
            assert is_cancelled is (is_begun and not is_complete), messages
            assert data == ("before" if is_complete else "after"), messages
            ended.add(is_complete)
        if not moments.acted:
            break
    assert ended == {True, False}


def test_many_interrupts_end_only_the_waiting(restored: Restored) -> None:
    """As by a user who presses Ctrl-C again and again."""
    held = agent.holder(restored.yard.where.settings.agent)
    assert held is not None
    os.kill(held, signal.SIGSTOP)
    try:
        restore = restored.begin()
        until(lambda: not restored.newest().services, "the stop")
        while restore.poll() is None:
            restore.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                restore.wait(0.01)
    finally:
        os.kill(held, signal.SIGCONT)
    status, messages = restored.end(restore)
    assert status == 130, messages
    assert restored.file.read_text() == "after"
    made = restored.newest().deployment
    assert (made.kind, made.restored) == ("restore", None)


def test_ctrl_c_during_the_start(restored: Restored) -> None:
    """The service takes a second to start: the deployment continues without the command."""
    restored.yard.write("first", late=1)
    restored.yard.where.run("deploy")
    assert restored.newest().deployment.kind == "deploy"
    restore = restored.begin()
    until(
        lambda: restored.newest().deployment.kind == "restore" and restored.newest().services,
        "the start",
    )
    restore.send_signal(signal.SIGINT)
    status, messages = restored.end(restore)
    assert status == 130
    assert "Restored uploads from" in messages
    assert "continues in the background" in messages
    assert "lapwing abort" not in messages
    assert restored.file.read_text() == "before"
    assert restored.newest().deployment.restored == "volume.uploads"
