"""What a machine can do to a deployment: a port that is taken, a disk that is full, a folder that
is not what it should be. Nothing that runs is touched."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from lapwing.agent import processes
from tests.deployed import until
from tests.disk import Disk, mounted
from tests.installation import LAPWING, Installation, free_port, installation
from tests.integration.faults import ship as usual
from tests.integration.faults.ship import Ship, Watchers
from tests.needs import require

pytestmark = pytest.mark.xdist_group("faults-surroundings")
STACK = usual.STACK + "environments:\n  staging: {target: machine}\n"
LEAVING = 4.0
"""Seconds in which a generation that drains would be gone, were the disk not full."""


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_port_in_use_is_reported(tmp_path: Path, taken: int) -> None:
    with installation(tmp_path, LAPWING_PORT=str(taken)) as where:
        said = where.run("agent", "start", status=1).stderr
        holder = f"{psutil.Process().name()} (process {os.getpid()})"
        assert f"Port {taken} is already in use by {holder}." in said
        assert "LAPWING_PORT" in said
        doctor = {f["check"]: f for f in where.json("doctor", status=1)}
        assert not doctor["port"]["ok"]
        assert f"Port {taken} is already in use by {holder}." in doctor["port"]["seen"]
        ship = Ship(where)
        ship.write("v0")
        assert f"Port {taken} is already in use by {holder}." in where.run("up", status=1).stderr
        where.environ["LAPWING_PORT"] = str(free_port())
        where.run("agent", "start")


def test_port_other_than_the_agents_is_reported(ship: Ship, watched: Watchers) -> None:
    ship.next()
    environ = {**ship.where.environ, "LAPWING_PORT": str(free_port())}
    done = subprocess.run(
        [LAPWING, "deploy"],
        cwd=ship.where.folder, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"serves port {ship.where.port}, not {environ['LAPWING_PORT']}." in done.stderr
    assert "lapwing agent stop" in done.stderr
    doctor = subprocess.run(
        [LAPWING, "doctor"], env=environ, capture_output=True, text=True, check=False
    )
    assert f"Envoy accepts connections on port {ship.where.port}" in doctor.stdout
    ship.whole()


@pytest.mark.parametrize("is_running", [True, False])
def test_port_of_another_home_is_reported(
    ship: Ship, watched: Watchers, tmp_path: Path, is_running: bool
) -> None:
    """Whether the agent there is running, or Envoy only."""
    with installation(tmp_path, LAPWING_PORT=str(ship.where.port)) as other:
        if not is_running:
            ship.where.run("agent", "stop")
        said = other.run("agent", "start", status=1).stderr
        program = "python" if is_running else "envoy"  # A running agent claims the port.
        assert f"Port {ship.where.port} is already in use by {program}" in said
        assert f"of LAPWING_HOME {ship.where.home}; this one is {other.home}." in said
        ship.where.run("agent", "start")
    ship.whole()


def test_folder_outside_git_is_deployed(ship: Ship, watched: Watchers) -> None:
    git = ship.where.folder / ".git"
    aside = git.rename(git.with_name("aside"))
    (ship.where.folder / "api" / "faults.json").write_text(json.dumps({"version": "lost"}))
    said = ship.where.run("deploy", status=1).stderr
    aside.rename(git)
    assert "is not in a git repository" in said
    assert "git init" in said
    ship.next()
    ship.whole()


def test_uncommitted_changes_are_deployed(ship: Ship, watched: Watchers) -> None:
    ship.deploy()
    assert not ship.service()["active"]["revision"].endswith("-dirty")
    (ship.where.folder / "api" / "faults.json").write_text(json.dumps({"version": "dirty"}))
    said = ship.where.run("deploy", "-e", "staging", status=2).stderr
    assert "api has uncommitted changes; only commits are deployed to 'staging'." in said
    said = ship.where.run("deploy").stderr
    assert "Uncommitted changes are deployed: api/faults.json. The revision is " in said
    ship.version = "dirty"
    ship.whole()
    assert ship.service()["active"]["revision"].endswith("-dirty")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("services: [", ":"),
        (STACK.replace("command:", "comand:"), "comand"),
        (STACK.replace("replicas: 2", "replicas: many"), "replicas"),
    ],
)
def test_invalid_stack_file_is_reported(
    ship: Ship, watched: Watchers, damage: str, words: str
) -> None:
    before = ship.repository.head()
    ship.stack(damage)
    said = ship.where.run("deploy", status=2).stderr
    ship.stack(STACK)
    assert "lapwing.yaml:" in said
    assert words in said
    assert "Traceback" not in said
    assert ship.repository.head() == before
    ship.whole()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    require("tmpfs")
    with mounted(tmp_path / ".local") as made:
        yield made


def test_full_disk_rejects_the_deployment(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "clients").mkdir()
    with installation(tmp_path) as where:
        try:
            _fill_and_free(Ship(where), disk, tmp_path / "clients")
        finally:
            disk.free()


def _fill_and_free(ship: Ship, disk: Disk, folder: Path) -> None:
    where: Installation = ship.where
    ship.up()
    first = ship.pids("active")
    clients = Watchers(ship, folder)
    with clients.watching():
        ship.next()
        disk.fill()
        assert os.statvfs(disk.folder).f_bavail == 0
        for _ in range(2):
            said = where.run("deploy", status=1).stderr
            assert "disk is full" in said or "No space left" in said, said
            assert "Traceback" not in said
            assert ship.get().text == "v0"
        disk.free()
        where.run("deploy")
        ship.version = f"v{ship.number}"
        ship.whole()

        version = ship.next()
        where.run("deploy", "--hold")
        disk.fill()
        for verb in ("abort", "rollback", "rollback"):
            where.run(verb)
        assert ship.get().text == ship.version
        until(lambda: "is full: deployments fail" in (ship.status()["problem"] or ""), "its report")
        where.run("agent", "stop")
        where.run("agent", "start")
        assert "is full: deployments fail" in ship.status()["problem"]
        assert ship.get().text == ship.version
        disk.free()
        until(lambda: ship.status()["problem"] is None, "the end of the problem")
        where.run("deploy")
        ship.version = version
        ship.whole()
        disk.fill()
        time.sleep(LEAVING)
        disk.free()
        until(lambda: not any(map(processes.started, first)), "the end of the first version")

        victim, *_ = ship.pids("active")
        disk.fill()
        killed = ship.kill(victim)
        clients.forgive(lambda e: e.sent <= killed)
        until(lambda: processes.started(victim) is None, "its end")
        for _ in range(10):
            assert ship.get().text == ship.version
        disk.free()
        until(lambda: victim not in ship.pids("active"), "a status of now")
        ship.recovers()
    clients.end()
    disk.fill()
    where.run("down")
    assert [s["phase"] for s in ship.status()["services"]] == []
