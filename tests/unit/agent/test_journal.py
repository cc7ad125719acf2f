"""Events that the disk does not take: they come later, in their order."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lapwing.agent.journal import Journal
from lapwing.observed import status
from lapwing.observed.status import Event, Follower


def test_what_a_full_disk_refuses_is_told_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, room = status.append, [1]

    def on_a_full_disk(folder: Path, event: Event) -> None:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        room.pop()
        append(folder, event)

    monkeypatch.setattr(status, "append", on_a_full_disk)
    follower, journal = Follower(tmp_path), Journal(tmp_path)
    for text in ("one", "two", "three"):
        journal.event("note", text)
    assert [e.text for e in follower.read()] == ["one"]
    journal.flush()
    assert follower.read() == []
    room += [1, 1, 1]
    journal.event("outcome", "four", "c1", outcome="succeeded")
    found = follower.read()
    assert [e.text for e in found] == ["two", "three", "four"]
    assert (found[2].commit, found[2].outcome) == ("c1", "succeeded")
