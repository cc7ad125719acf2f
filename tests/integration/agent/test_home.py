"""The state folder: whose it is, what is left in it, and that one agent at most works in it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lapwing.agent import housekeeping
from lapwing.observed import agent, status
from lapwing.system import locks
from tests.deployed import until
from tests.installation import LAPWING, Installation, installation
from tests.integration.faults.ship import Ship

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("runtime-home")]


@pytest.fixture
def where(tmp_path: Path) -> Iterator[Installation]:
    with installation(tmp_path) as made:
        yield made


def agents(where: Installation) -> list[psutil.Process]:
    """Every agent of a home that runs."""
    found = []
    for process in psutil.process_iter():
        try:
            command, environ = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        if "lapwing.agent.daemon" in command and environ.get("LAPWING_HOME") == str(where.home):
            found.append(process)
    return found


def set_secret(where: Installation) -> None:
    command = f'umask 000; echo secret | "{LAPWING}" secret set A'
    subprocess.run(["sh", "-c", command], cwd=where.folder, env=where.environ, check=True)


def test_agent_killed_at_its_start_is_started_again(where: Installation) -> None:
    killed = threading.Event()

    def kill_first() -> None:
        while not killed.is_set():
            for process in agents(where):
                process.send_signal(signal.SIGKILL)
                killed.set()

    killer = threading.Thread(target=kill_first)
    killer.start()
    began = time.monotonic()
    where.run("agent", "start")
    killed.set()
    killer.join()
    assert time.monotonic() - began < 20


def test_removed_lock_does_not_allow_a_second_agent(where: Installation) -> None:
    where.run("agent", "start")
    first = agent.holder(where.home / "agent")
    (where.home / "agent" / "lock").unlink()
    until(lambda: agent.holder(where.home / "agent") == first, "the lock")
    where.run("agent", "start")
    assert [p.pid for p in agents(where)] == [first]


def test_agent_ends_if_another_one_has_taken_its_lock(where: Installation) -> None:
    ship = Ship(where)
    ship.up()
    [agent_process] = agents(where)
    lock = where.home / "agent" / "lock"
    agent_process.suspend()
    lock.unlink()
    with locks.hold(lock):
        agent_process.resume()
        agent_process.wait(60)
    where.run("agent", "start")
    ship.recovers()


@pytest.mark.parametrize(
    "arguments", [["deploy"], ["up"], ["agent", "start"], ["secret", "set", "A"]]
)
def test_folder_of_something_else_is_no_home(tmp_path: Path, arguments: list[str]) -> None:
    home = tmp_path / "photos"
    home.mkdir(mode=0o755)
    (home / "holiday.jpg").write_text("a picture")
    where = Installation(tmp_path, LAPWING_HOME=str(home))
    ship = Ship(where)
    ship.write("v0")
    done = subprocess.run(
        [LAPWING, *arguments],
        cwd=where.folder, env=where.environ, input="secret\n", text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"LAPWING_HOME is {home}, which contains other files (holiday.jpg)." in done.stderr
    assert stat.S_IMODE(home.stat().st_mode) == 0o755
    assert [p.name for p in home.iterdir()] == ["holiday.jpg"]
    [check] = [c for c in where.json("doctor", status=1) if c["check"] == "state folder"]
    assert not check["ok"]


STATIC = """\
stack: ship
services:
  web: {build: ./web, static: dist, route: /}
environments:
  production:
    target: kubernetes
    cloud: {provider: gcp, region: us-central1}
    domain: a.example.com
    repository: REMOTE
"""


@pytest.mark.parametrize(
    ("command", "writes"),
    [
        ("image build web -o ../image.tar", True),
        ("ship --check --scan off", True),
        ("ship --scan off --desired REMOTE", True),
        ("deploy --dry-run", True),
        ("doctor --repair", True),
        ("history -e production", True),
        ("rollback", True),
        ("secret remove A", False),
        ("status", False),
        ("logs", False),
        ("verify", False),
        ("image pin", False),
        ("render -e production -o ../rendered", False),
    ],
)
def test_home_of_any_first_command_is_private_and_can_be_used(
    tmp_path: Path, command: str, writes: bool
) -> None:
    where, remote = Installation(tmp_path), str(tmp_path / "remote.git")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", remote], check=True)
    stack = STATIC.replace("REMOTE", remote)
    where.write({"lapwing.yaml": stack, "web/dist/index.html": "<p>hello</p>"})
    first = f'umask 000; "{LAPWING}" {command.replace("REMOTE", remote)}'
    subprocess.run(["sh", "-c", first], cwd=where.folder, env=where.environ, check=False)
    assert where.home.exists() == writes
    if writes:
        assert stat.S_IMODE(where.home.stat().st_mode) == 0o700
    set_secret(where)


def test_home_of_a_build_by_an_earlier_version_is_known(tmp_path: Path) -> None:
    where = Installation(tmp_path)
    Ship(where).write("v0")
    for folder in ("layers", "releases", "logs/build/ship"):
        (where.home / folder).mkdir(parents=True)
    set_secret(where)
    assert stat.S_IMODE(where.home.stat().st_mode) == 0o700


def test_home_created_by_secret_set_is_private(where: Installation) -> None:
    Ship(where).write("v0")
    set_secret(where)
    for folder in (where.home, *where.home.glob("secrets/"), *where.home.glob("secrets/*/")):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, folder
    where.run("agent", "start")


def test_damaged_status_is_named_and_written_again(where: Installation) -> None:
    ship = Ship(where)
    ship.up()
    file = ship.environment / status.FILE
    where.run("agent", "stop")
    file.write_bytes(b"\0garbage")
    said = where.run("status", status=1).stderr
    assert f"{file} cannot be read" in said
    assert "never been deployed" not in said
    where.run("agent", "start")
    ship.recovers()
    file.write_bytes(b"")
    until(lambda: status.read(ship.environment), "the status")
    ship.whole()


def test_temporary_files_of_killed_processes_are_removed(where: Installation) -> None:
    ship = Ship(where)
    ship.up()
    where.run("agent", "stop")
    old = [
        ship.environment / ".state.json.123-0123abcd",
        where.home / "secrets" / ".key.99-89abcdef",
        where.home / "desired.git" / "objects" / "aa" / "tmp_obj_x1y2z3",
    ]
    new = ship.environment / ".state.json.124-0123abcd"
    own = ship.environment / ".state.json"
    for file in (*old, new, own):
        file.parent.mkdir(exist_ok=True)
        file.touch()
    for file in (*old, own):
        os.utime(file, (time.time() - 2 * housekeeping.LEFTOVER_AGE_S,) * 2)
    where.run("agent", "start")
    assert not any(file.exists() for file in old)
    assert new.exists()
    assert own.exists()
    ship.whole()
