"""A lock excludes other processes, ends with its holder, and survives the removal of its file."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from lapwing.system import locks

HOLDER = """
import sys, time
from pathlib import Path
from lapwing.system import locks
with locks.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_lock_is_released_when_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lock"
    assert not locks.is_held(path)
    assert not path.exists()
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    assert locks.is_held(path)
    with pytest.raises(BlockingIOError), locks.hold(path, wait=False):
        pass
    holder.kill()
    holder.communicate()
    with locks.hold(path):
        assert locks.is_held(path)
    assert not locks.is_held(path)


def test_lock_is_not_inherited_by_children(tmp_path: Path) -> None:
    with locks.hold(tmp_path / "lock"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert not locks.is_held(tmp_path / "lock")
    child.communicate(b"\n")


def test_lock_of_removed_file_is_taken_on_the_new_file(tmp_path: Path) -> None:
    """Whoever waits while the holder removes the file must not hold a lock that nobody sees."""
    path = tmp_path / "lock"
    program = HOLDER.replace("time.sleep(60)", "sys.stdin.readline()")
    with locks.hold(path):
        waiter = subprocess.Popen(
            [sys.executable, "-c", program, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        path.unlink()
    assert waiter.stdout is not None
    assert waiter.stdout.readline() == b"held\n"
    assert locks.is_held(path)
    waiter.communicate(b"\n")


def test_two_that_look_do_not_find_each_other(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.touch()
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        assert not locks.is_held(path)
    assert not locks.is_held(path)
