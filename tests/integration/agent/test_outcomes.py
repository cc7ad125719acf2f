"""Every deployment gets an outcome, and whoever waits for one hears of it."""

from __future__ import annotations

import threading

import msgspec
import pytest

from lapwing.observed import status
from lapwing.plan.model import Document
from lapwing.targets import local_agent, planned
from lapwing.targets.base import EnvironmentRef
from lapwing.targets.local_agent import Followed
from tests.deployed import until
from tests.integration.agent.conftest import kill_agent
from tests.integration.faults.ship import NAME, Ship, Watchers

pytestmark = [pytest.mark.timeout(300), pytest.mark.xdist_group("runtime-outcomes")]
REF = EnvironmentRef(NAME, "local")


def with_env(ship: Ship, value: str) -> tuple[Document, str]:
    """What is wanted, but with another variable for the service; and the commit that says so."""
    newest = ship.repository.newest(NAME, "local")
    document = ship.repository.read(NAME, "local")
    assert newest is not None
    assert document is not None
    api = document.services["api"]
    api = msgspec.structs.replace(api, env={**api.env, "VALUE": value})
    return msgspec.structs.replace(document, services={"api": api}), newest


def outcomes(ship: Ship, *commits: str) -> list[str]:
    """What the history says of these commits."""
    found = {e["commit"]: e["outcome"] for e in ship.history()}
    return [found[c] for c in commits]


def test_superseded_commit_gets_an_outcome(ship: Ship, watched: Watchers) -> None:
    """Two commits while no agent lives: who waits for the first one must not wait for ever."""
    kill_agent(ship)
    waiter = local_agent.watch(ship.where.settings, REF)
    wanted, newest = with_env(ship, "one")
    first = ship.repository.commit(wanted, expected=newest)
    wanted, newest = with_env(ship, "two")
    second = ship.repository.commit(wanted, expected=newest)
    heard = local_agent.follow(ship.where.settings, waiter, first)
    assert heard.outcome == "superseded"
    assert "newer deployment was made before" in heard.reason
    until(lambda: ship.memory().commit == second and ship.memory().rollout is None)
    assert outcomes(ship, first, second) == ["superseded", "succeeded"]
    ship.whole()


def test_equal_commits_get_the_same_outcome(ship: Ship, watched: Watchers) -> None:
    """A held deployment that three people promote at once has four commits and one outcome."""
    version = ship.next()
    ship.where.run("deploy", "--hold")
    held = ship.repository.newest(NAME, "local")
    assert held is not None
    commits = [held]
    for actor in ("ada", "bob", "cyd"):
        present = status.read(ship.where.settings.environment(NAME, "local"))
        wanted = planned.promote(ship.repository, present, REF, actor)
        commits.append(ship.repository.commit(wanted.document, expected=wanted.expected))
    until(lambda: ship.status()["rollout"] is None)
    ship.version = version
    until(lambda: outcomes(ship, *commits) == ["succeeded"] * 4)
    ship.whole()


def test_outcome_is_reported_after_a_kill_between_note_and_event(
    ship: Ship, watched: Watchers
) -> None:
    """The note is there, the event is not, and the agent that comes next has nothing to add."""
    heard: list[Followed] = []
    waiter = local_agent.watch(ship.where.settings, REF)
    wanted, newest = with_env(ship, "three")
    commit = ship.repository.commit(wanted, expected=newest)
    until(lambda: outcomes(ship, commit) == ["succeeded"])
    waiter.read()  # The event is lost to this one, as if it had never been written.
    thread = threading.Thread(
        target=lambda: heard.append(local_agent.follow(ship.where.settings, waiter, commit))
    )
    thread.start()
    thread.join(30)
    assert [(o.commit, o.outcome) for o in heard] == [(commit, "succeeded")]


def test_missing_note_is_written_by_the_next_agent(ship: Ship, watched: Watchers) -> None:
    """A full disk refuses the note, and then the agent is killed: what runs has succeeded."""
    kill_agent(ship)
    commit = ship.memory().commit
    assert commit is not None
    ship.repository.git.text("notes", "--ref=refs/notes/lapwing", "remove", commit)
    assert outcomes(ship, commit) == ["in-progress"]
    ship.where.run("agent", "start")
    until(lambda: outcomes(ship, commit) == ["succeeded"])
    ship.whole()
