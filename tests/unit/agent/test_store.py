"""Events that the disk does not take: they come later, in their order."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from lapwing.agent.store import EventLog
from lapwing.observed import status
from lapwing.observed.status import Event, Follower


def test_events_are_written_when_the_disk_has_space_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, room = status.append, [1]

    def on_a_full_disk(folder: Path, event: Event) -> None:
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        room.pop()
        append(folder, event)

    monkeypatch.setattr(status, "append", on_a_full_disk)
    follower, log = Follower(tmp_path), EventLog(tmp_path)
    for text in ("one", "two", "three"):
        log.event("note", text)
    assert [e.text for e in follower.read()] == ["one"]
    log.flush()
    assert follower.read() == []
    room += [1, 1, 1]
    log.event("outcome", "four", "c1", outcome="succeeded")
    found = follower.read()
    assert [e.text for e in found] == ["two", "three", "four"]
    assert (found[2].commit, found[2].outcome) == ("c1", "succeeded")
