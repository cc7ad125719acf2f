"""What goes wrong while nobody deploys: the status says so, and what can be mended is."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from .conftest import Yard

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("running")]


@pytest.fixture(autouse=True)
def whole(yard: Yard) -> Iterator[None]:
    """Each test begins with a stack that is whole, and leaves one."""
    yield
    yard.until(lambda: yard.service()["phase"] == "running")


def test_a_replica_that_is_killed_comes_back(yard: Yard) -> None:
    victim, other = yard.service()["active"]["pids"]
    os.kill(victim, signal.SIGKILL)
    assert [yard.get().text for _ in range(20)] == ["first"] * 20

    def back() -> bool:
        active = yard.service()["active"]
        return active["ready"] == 2 and active["restarts"] >= 1 and victim not in active["pids"]

    yard.until(back)
    assert other in yard.service()["active"]["pids"]
    said = yard.where.run("logs", "app").stdout
    assert said.count("version first begins") >= 1


def test_one_that_hangs_is_not_called_ready(yard: Yard) -> None:
    victim = yard.service()["active"]["pids"][0]
    os.kill(victim, signal.SIGSTOP)
    try:
        yard.until(lambda: yard.service()["phase"] == "degraded")
        done = yard.where.call("status")
        assert done.returncode == 1
        assert "1/2" in done.stdout
        assert [yard.get().text for _ in range(20)] == ["first"] * 20
    finally:
        os.kill(victim, signal.SIGCONT)


def test_one_that_crashes_again_and_again_is_restarted_with_pauses(yard: Yard) -> None:
    yard.where.run("deploy")
    before = yard.service()["active"]["restarts"]

    def kill_all() -> bool:
        for pid in yard.service()["active"]["pids"]:
            os.kill(pid, signal.SIGKILL)
        return bool(yard.service()["active"]["restarts"] >= before + 6)

    yard.until(kill_all)
    assert yard.service()["phase"] in ("crashing", "degraded", "running")
    yard.until(lambda: yard.get().text == "first")


def test_envoy_comes_back(yard: Yard) -> None:
    import json

    record = json.loads((yard.where.home / "envoy" / "process.json").read_bytes())
    os.kill(record["pid"], signal.SIGKILL)

    def back() -> bool:
        import httpx

        try:
            return yard.get().text == "first"
        except httpx.HTTPError:
            return False

    yard.until(back)
    events = (yard.environment / "events.jsonl").read_text()
    assert "Envoy was killed by SIGKILL; starting it again" in events
