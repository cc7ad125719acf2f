"""State that survives a kill: replaced whole or not at all."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from lapwing.agent import state
from lapwing.agent.rollout import State
from lapwing.agent.state import write_atomic
from tests.unit.agent.samples import document, environment, generation, rollout, service


def test_a_round_trip(tmp_path: Path) -> None:
    memory = environment(
        generation(1, deadline=5.5), generation(2, role="warm"), running=document(api=service())
    )
    flight = rollout(document(api=service("api-9"), web=service("web-1", route="/w")), memory)
    flight.state, flight.outcome, flight.reason = State.UNDOING, State.FAILED, "it broke — badly"
    flight.candidates, flight.previous = {"api": 3}, {"api": 1}
    memory.jobs = {"migrate": "abc"}
    memory.resources = {"db": state.ResourceProcess(pid=1, started=2.0, port=3)}
    state.save(tmp_path / "deep/folder", memory)
    assert state.load(tmp_path / "deep/folder") == memory


def test_nothing_saved(tmp_path: Path) -> None:
    assert state.load(tmp_path) is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"stack": 1}', b"\xff\xfe"])
def test_damage_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "state.json").write_bytes(data)
    with pytest.raises((msgspec.MsgspecError, UnicodeDecodeError)):
        state.load(tmp_path)


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_the_mode_is_the_one_asked_for(tmp_path: Path, mode: int) -> None:
    old = os.umask(0o077)
    try:
        write_atomic(tmp_path / "file", b"new", mode)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the kernel refuses the write half-way."""
    (tmp_path / "file").write_bytes(b"old")
    program = (
        "import errno, resource, signal, sys; from pathlib import Path\n"
        "from lapwing.agent.state import write_atomic\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try: write_atomic(Path(sys.argv[1]), b'x' * 100000)\n"
        "except OSError as error: sys.exit(7 if error.errno == errno.EFBIG else 8)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")], check=False)
    assert done.returncode == 7
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_kill_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    """A writer that never stops is killed; what is there is whole."""
    file = tmp_path / "file"
    file.write_bytes(b"0" * 50_000)
    program = (
        "import sys, itertools; from pathlib import Path\n"
        "from lapwing.agent.state import write_atomic\n"
        "print('up', flush=True)\n"
        "for n in itertools.count(): write_atomic(Path(sys.argv[1]), str(n % 10).encode() * 50000)"
    )
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", program, str(file)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        inode = file.stat().st_ino
        while file.stat().st_ino == inode:
            assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
        data = file.read_bytes()
        assert len(data) == 50_000
        assert len(set(data)) == 1


def test_the_newest_in_a_role_is_found() -> None:
    memory = environment(generation(1, role="draining"), generation(2, role="draining"))
    found = memory.of("api", "draining")
    assert found is not None
    assert found.number == 2
    assert memory.of("api", "active") is None
    assert memory.numbered(1) is memory.generations[0]
    assert memory.numbered(9) is None
    assert found.label == "blue-2"
