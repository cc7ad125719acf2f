"""The systemd unit that `lapwing agent install` writes starts what ran before a reboot."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from lapwing.observed import agent as observed
from tests.deployed import until
from tests.installation import Installation
from tests.integration.crash.ship import Ship

pytestmark = [pytest.mark.timeout(600), pytest.mark.xdist_group("crash-unit")]
SYSTEMD_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def unit(where: Installation) -> tuple[list[str], dict[str, str]]:
    """What systemd would run, and its environment: nothing of the user's own is in it."""
    found: dict[str, list[str]] = {}
    for line in where.run("agent", "install", "--print").stdout.splitlines():
        key, _, value = line.partition("=")
        words = shlex.split(value) if key in ("Environment", "ExecStart") else [value]
        found.setdefault(key, []).extend(word.replace("%%", "%") for word in words)
    assert found["KillMode"] == ["process"]
    assert found["OOMPolicy"] == ["continue"]
    return found["ExecStart"], dict(v.split("=", 1) for v in found["Environment"])


def test_unit_starts_everything_after_a_reboot(ship: Ship) -> None:
    arguments, environ = unit(ship.where)
    ship.cut_power()
    log = ship.where.folder.parent / "unit.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            arguments, env={"PATH": SYSTEMD_PATH, **environ}, cwd="/", stdout=output, stderr=output,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        until(lambda: observed.holder(ship.where.home / "agent") == process.pid, "the agent")
        ship.check(ship.version)
        ship.where.run("deploy")
        ship.check(ship.version)
    finally:
        ship.where.run("agent", "stop")
        process.wait(60)


def test_unit_quotes_a_home_with_special_characters(tmp_path: Path) -> None:
    where = Installation(tmp_path)
    home = str(tmp_path / 'my "home" 100% \\ $HOME')
    where.environ["LAPWING_HOME"] = home
    assert unit(where)[1]["LAPWING_HOME"] == home
