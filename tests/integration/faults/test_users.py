"""Two users of one machine: the home of one is closed to the other, and both can deploy."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.installation import LAPWING, Installation, installation
from tests.integration.faults.ship import Ship
from tests.needs import require

OTHER = 65534
VERBS = (
    ("status",),
    ("status", "--all"),
    ("up",),
    ("deploy",),
    ("rollback",),
    ("promote",),
    ("down",),
    ("history",),
    ("logs",),
    ("verify",),
    ("doctor",),
    ("doctor", "--repair"),
    ("secret", "set", "KEY"),
    ("secret", "list"),
    ("agent", "start"),
    ("agent", "stop"),
)
pytestmark = pytest.mark.xdist_group("faults-users")


def give(folder: Path, user: int) -> None:
    """Give a folder to a user, with all that is in it."""
    subprocess.run(["chown", "-R", f"{user}:{user}", folder], check=True)


@contextlib.contextmanager
def closed(where: Installation) -> Iterator[None]:
    """The home belongs to another user meanwhile, and commands have no right of root to use it."""
    give(where.home, OTHER)
    where.command = (require("setpriv"), "--bounding-set=-all", "--inh-caps=-all", LAPWING)
    try:
        yield
    finally:
        where.command = (LAPWING,)
        give(where.home, os.geteuid())


def test_home_of_another_user_is_refused_by_every_command(tmp_path: Path) -> None:
    require("setpriv")
    with installation(tmp_path) as where:
        ship = Ship(where)
        ship.up()
        with closed(where):
            for verb in VERBS:
                said = where.run(*verb, status=2).stderr
                assert f"LAPWING_HOME {where.home} belongs to another user (uid {OTHER})." in said
                assert "set LAPWING_HOME to a folder of your own" in said
                assert "Traceback" not in said
        ship.recovers()


@pytest.fixture
def passable() -> Iterator[Path]:
    """A folder that every user can pass, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="lapwing-users-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def test_second_user_deploys_beside_the_first(passable: Path) -> None:
    setpriv = require("setpriv")
    rights = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")  # To find Python.
    for name in ("first", "second"):
        (passable / name).mkdir()
    with installation(passable / "first") as where:
        first = Ship(where)
        first.up()
        with installation(passable / "second", HOME=str(passable / "second")) as other:
            second = Ship(other, name="faults")
            second.write("w0")
            give(passable / "second", OTHER)
            other.command = (
                setpriv, f"--reuid={OTHER}", f"--regid={OTHER}", "--clear-groups", *rights, LAPWING
            )  # fmt: skip
            port, other.environ["LAPWING_PORT"] = other.port, str(where.port)
            assert f"Port {where.port} is already in use" in other.run("up", status=1).stderr
            other.environ["LAPWING_PORT"] = str(port)
            other.run("up")
            second.version = "w0"
            second.whole()
            [owner] = {Path(f"/proc/{pid}").stat().st_uid for pid in second.pids("active")}
            assert owner == OTHER
            first.whole()
        first.deploy()
        first.whole()
