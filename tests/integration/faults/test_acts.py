"""Hold, promote, abort, roll back, supersede, stop: each is a commit, and none loses a request."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.installation import LAPWING

from .conftest import Yard

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.xdist_group("acts"),
    pytest.mark.usefixtures("unnoticed"),
]


def begin(yard: Yard, *arguments: str) -> subprocess.Popen[str]:
    """Begin a command."""
    return subprocess.Popen(
        [LAPWING, *arguments],
        cwd=yard.where.folder,
        env=yard.where.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def hold(yard: Yard, version: str) -> None:
    """Deploy a version that waits for a person."""
    yard.stack()
    yard.write(version)
    said = yard.where.run("deploy", "--hold")
    assert "no client sees it yet" in said.stderr
    assert f"https://preview.{yard.name}.localhost" in said.stdout


def test_a_held_release_is_on_the_preview_host_only(yard: Yard) -> None:
    yard.good("seen")
    hold(yard, "held")
    assert yard.get().text == "seen"
    assert yard.get(host=f"preview.{yard.name}.localhost").text == "held"
    status = yard.status()
    assert status["rollout"]["state"] == "holding"
    assert yard.service()["phase"] == "held"
    yard.where.run("promote")
    assert yard.get().text == "held"


def test_a_held_release_can_be_aborted(yard: Yard) -> None:
    yard.good("kept")
    before = yard.released()
    hold(yard, "unwanted")
    yard.where.run("abort")
    assert yard.get().text == "kept"
    assert (yard.released(), yard.wanted()) == (before, before)
    assert yard.where.json("history")[1]["outcome"] == "aborted"
    yard.until(lambda: yard.service()["idle"] is None or yard.service()["idle"]["warm_for"])


def test_a_newer_deployment_takes_the_place_of_a_held_one(yard: Yard) -> None:
    yard.good("old")
    hold(yard, "overtaken")
    yard.good("newer")
    assert yard.get().text == "newer"
    outcomes = [e["outcome"] for e in yard.where.json("history")][:2]
    assert outcomes == ["succeeded", "superseded"]


def test_nothing_to_promote_or_abort(yard: Yard) -> None:
    yard.good("calm")
    assert "no deployment in flight" in yard.where.run("promote", status=2).stderr
    assert "no deployment in flight" in yard.where.run("abort", status=2).stderr


def test_a_rollback_to_a_warm_slot_starts_nothing(yard: Yard) -> None:
    yard.good("one")
    pids = yard.service()["active"]["pids"]
    yard.good("two")
    assert yard.service()["idle"]["pids"] == pids
    yard.where.run("rollback")
    assert yard.get().text == "one"
    assert yard.service()["active"]["pids"] == pids
    assert yard.where.json("history")[0]["kind"] == "rollback"


def test_a_rollback_when_the_slot_is_cold_starts_the_release_again(yard: Yard) -> None:
    yard.stack(keep_old="1s")
    yard.write("cold")
    yard.where.run("deploy")
    pids = yard.service()["active"]["pids"]
    yard.write("next")
    yard.where.run("deploy")
    yard.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    yard.where.run("rollback")
    assert yard.get().text == "cold"


def test_a_rollback_to_a_named_release_of_a_service(yard: Yard) -> None:
    yard.good("named")
    wanted = yard.released()
    yard.good("after")
    yard.good("after that")
    yard.where.run("rollback", "app", "--to", wanted)
    assert yard.get().text == "named"
    said = yard.where.run("rollback", "--to", "app-000000000000", status=2).stderr
    assert "No deployment that succeeded had release app-000000000000" in said
    said = yard.where.run("rollback", "ap", status=2).stderr
    assert "There is no service 'ap'" in said


def test_two_deployments_at_once_both_end_in_a_true_state(yard: Yard) -> None:
    yard.good("before")
    yard.write("left")
    first = begin(yard, "deploy")
    yard.until(lambda: len(list((yard.where.home / "releases").glob("*/app/app-*"))) > 0)
    yard.write("right")
    second = begin(yard, "deploy")
    said = [p.communicate(timeout=120)[0] for p in (first, second)]
    assert all("Traceback" not in text for text in said)
    assert second.returncode == 0 or first.returncode == 0, said
    yard.until(lambda: yard.status()["rollout"] is None)
    assert yard.released() == yard.wanted()
    assert yard.get().text in ("left", "right")
    assert "in-progress" not in {e["outcome"] for e in yard.where.json("history")}


@pytest.mark.slow
def test_ten_deployments_at_once(yard: Yard) -> None:
    commands = []
    for number in range(10):
        yard.write(f"crowd {number}")
        commands.append(begin(yard, "deploy"))
    said = [p.communicate(timeout=240)[0] for p in commands]
    assert all("Traceback" not in text for text in said)
    assert all(p.returncode in (0, 1) for p in commands), said
    yard.until(lambda: yard.status()["rollout"] is None)
    assert yard.released() == yard.wanted()
