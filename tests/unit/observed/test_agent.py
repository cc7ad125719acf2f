"""The agent's lock: which process holds it, and when a starting agent stops trying."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lapwing.observed import agent
from lapwing.system import locks


def test_agent_does_not_wait_for_a_running_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = agent.hold(tmp_path)
    assert descriptor is not None
    assert agent.holder(tmp_path) == os.getpid()
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    assert agent.hold(tmp_path) is None
    assert slept == []
    os.close(descriptor)


def test_agent_waits_for_a_command_that_looks_at_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file still has the process id of an agent that was killed."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "lock").write_text(str(ended.pid))
    look = locks.acquire(tmp_path / "lock", wait=False)
    monkeypatch.setattr(time, "sleep", lambda _s: os.close(look))
    descriptor = agent.hold(tmp_path)
    assert descriptor is not None
    os.close(descriptor)
