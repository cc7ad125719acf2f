"""A machine that pulls its desired state and its releases: nothing reaches it from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.observed import agent
from tests.gitea import OWNER, Gitea
from tests.installation import PATIENCE
from tests.integration.pull.conftest import Pair, pair, wait_for
from tests.integration.release.conftest import forge
from tests.needs import require
from tests.registries import Server

__all__ = ["forge"]
MIGRATE = "    needs: [cache]\n    migrate: {run: cp VERSION uploads/schema}\n"


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote") / "desired.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", folder], check=True)
    return folder


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, remote: Path, registry: Server
) -> Iterator[Pair]:
    """A machine that pulled the first version: each test leaves it serving what is desired."""
    root = tmp_path_factory.mktemp("pull")
    with pair(root, str(remote), f"{registry.host}/team") as made:
        made.write(made.stack())
        made.ship("one")
        made.follow()
        made.wait_for_answer("one")
        yield made


def test_new_releases_are_pulled_and_deployed(place: Pair) -> None:
    """A process with its virtual environment and its volume, and static files."""
    status = place.machine.json("status", "-e", "production")
    assert {s["name"] for s in status["services"]} == {"app", "page", "seed"}
    assert place.answer("/env?VIRTUAL_ENV").startswith(str(place.machine.home))
    assert len(place.answer("/env?TOKEN")) == 20
    volume = place.machine.home / "data/shop/production/volume.uploads"
    assert (volume / "first.txt").read_text() == "first"
    commit = place.ship("two")
    place.wait_for_answer("two")
    newest = place.ci.json("history", "-e", "production")[0]
    assert (newest["commit"], newest["outcome"]) == (commit, "committed")


def test_online_migration_runs_before_the_release(place: Pair) -> None:
    require("redis")
    before = (place.ci.folder / "lapwing.yaml").read_text()
    text = before.replace("    route: /\n", f"    route: /\n{MIGRATE}", 1)
    place.write(text + "resources: {cache: {kind: redis}}\n")
    place.ship("migrated")
    place.wait_for_answer("migrated")
    volume = place.machine.home / "data/shop/production/volume.uploads"
    assert (volume / "schema").read_text() == "migrated"
    place.write(before)


def test_rollback_of_another_machine_is_pulled(place: Pair) -> None:
    place.ship("good")
    place.wait_for_answer("good")
    place.ship("worse")
    place.wait_for_answer("worse")
    assert place.ci.json("rollback", "-e", "production")["outcome"] == "committed"
    place.wait_for_answer("good")


@pytest.mark.parametrize(
    ("verb", "hint"),
    [
        ("deploy", "lapwing ship -e production"),
        ("status", "Log in to the machine"),
        ("logs", "Log in to the machine"),
        ("promote", "Log in to the machine"),
        ("maintenance on", "Log in to the machine"),
    ],
)
def test_verbs_that_need_the_machine_are_refused_elsewhere(
    place: Pair, verb: str, hint: str
) -> None:
    assert hint in place.ci.run(*verb.split(), "-e", "production", status=2).stderr


def test_rewritten_history_changes_nothing_that_runs(place: Pair, remote: Path) -> None:
    place.ship("before")
    place.wait_for_answer("before")
    git = ("git", "--git-dir", remote)
    subprocess.run([*git, "update-ref", "refs/heads/main", "main~1"], check=True)
    place.ship("rewritten")
    place.wait_for_problem("was rewritten")
    assert place.answer() == "before"
    place.follow()
    place.wait_for_answer("rewritten")
    assert not place.problem()


def test_failed_release_is_not_deployed_again(place: Pair) -> None:
    place.ship("healthy")
    place.wait_for_answer("healthy")
    place.ship("ill", exit=3)

    def outcomes() -> list[str]:
        entries = place.machine.json("history", "-e", "production")
        return [e["outcome"] for e in entries if e["actor"] != "lapwing"]

    wait_for(lambda: outcomes()[0] == "failed", place.log)
    place.ship("cured")
    place.wait_for_answer("cured")
    assert outcomes().count("failed") == 1


def test_agent_that_is_killed_during_a_pull_deploys_after_its_restart(place: Pair) -> None:
    (place.ci.folder / "page" / "film.bin").write_bytes(os.urandom(30_000_000))
    place.ship("killed")
    releases = place.machine.home / "releases" / "shop" / "page"
    until = time.monotonic() + PATIENCE
    while not any(releases.glob(".tmp-*")) and place.answer() != "killed":
        assert time.monotonic() < until, place.log()
    pid = agent.holder(place.machine.settings.agent)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    place.machine.run("agent", "start")
    place.wait_for_answer("killed")
    assert not list(releases.glob(".tmp-*"))


def test_private_repository_and_registry(forge: Gitea, tmp_path: Path) -> None:
    """The machine has tokens to read, as secrets; neither is in a log, a file or an argument."""
    url = forge.repository("desired-private")
    forge.api("PATCH", f"/repos/{OWNER}/desired-private", json={"private": True})
    reader = forge.new_token("reader", "read:repository", "read:package")
    host = "".join(c if c.isalnum() else "_" for c in forge.host)
    names = ("LAPWING_DESIRED_TOKEN", f"LAPWING_REGISTRY_{host}_TOKEN")
    with pair(tmp_path, url, f"{forge.host}/{OWNER.lower()}") as place:
        place.write(place.page())
        place.ci.environ |= dict.fromkeys(names, forge.token)
        place.ci.environ[f"LAPWING_REGISTRY_{host}_USER"] = OWNER
        place.ship("one")
        place.follow()
        place.wait_for_problem("Fetching the desired state")
        for name, value in (
            (names[0], reader),
            (names[1], reader),
            (f"{names[1][:-5]}USER", OWNER),
        ):
            subprocess.run(
                [*place.machine.command, "secret", "set", name, "-e", "production"],
                input=value,
                text=True,
                cwd=place.machine.folder,
                env=place.machine.environ,
                check=True,
            )
        wait_for(lambda: "<h1>one</h1>" in place.answer(), place.log)
        files = (p for p in place.machine.home.rglob("*") if p.is_file())
        assert not [p for p in files if reader.encode() in p.read_bytes()]
