"""Housekeeping over a real repository and a real store."""

from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest

from lapwing import settings as lapwing_settings
from lapwing.agent import daemon, housekeeping, one_off, processes
from lapwing.agent.daemon import Agent
from lapwing.agent.launch import prepare_home
from lapwing.agent.processes import Identity, Owner
from lapwing.agent.proxy import certificates
from lapwing.agent.rollout import Route, State
from lapwing.agent.state import EnvironmentState, Generation, RolloutRecord
from lapwing.build.release import RECORD, Release, ReleaseStore
from lapwing.build.retention import NEWEST
from lapwing.desired import repository as desired
from lapwing.desired.history import ROLLBACK_TARGETS
from lapwing.desired.repository import DesiredRepository
from lapwing.observed import agent as observed
from lapwing.plan.model import Deployment, Document, Service
from lapwing.settings import Settings

DEPLOYMENTS = ROLLBACK_TARGETS + NEWEST + 5


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return lapwing_settings.read({"LAPWING_HOME": str(tmp_path)})


@pytest.fixture
def repository(settings: Settings) -> DesiredRepository:
    """Many deployments that succeeded, each of its own release, and one after them that failed."""
    made = DesiredRepository(settings.desired)
    commit = None
    for number in range(DEPLOYMENTS):
        release(settings, f"api-{number:03}", age=7200 - number)
        commit = made.commit(document(f"api-{number:03}"), expected=commit)
        made.record_outcome(commit, "succeeded")
    release(settings, "api-bad", age=1000)
    made.record_outcome(made.commit(document("api-bad"), expected=commit), "failed")
    return made


def document(name: str) -> Document:
    service = Service(kind="web", release=name, revision="r", command="run", route="/")
    return Document(
        stack="shop",
        environment="local",
        deployment=Deployment(actor="ada"),
        services={"api": service},
    )


def release(settings: Settings, name: str, *, age: float, stack: str = "shop") -> None:
    folder = settings.releases / stack / "api" / name
    (folder / "app").mkdir(parents=True)
    made = Release(name=name, stack=stack, service="api", kind="process", revision="r", built=0.0)
    (folder / RECORD).write_bytes(msgspec.json.encode(made))
    then = time.time() - age
    os.utime(folder, (then, then))


def left(settings: Settings, stack: str = "shop") -> set[str]:
    return set(ReleaseStore(settings.releases).names(stack, "api"))


def test_rollback_targets_are_kept_and_older_releases_removed(
    settings: Settings, repository: DesiredRepository
) -> None:
    housekeeping.clean_up(settings, repository, frozenset())
    targets = {f"api-{n:03}" for n in range(DEPLOYMENTS)[-ROLLBACK_TARGETS:]}
    assert targets <= left(settings)
    assert "api-000" not in left(settings)
    assert len(left(settings)) <= ROLLBACK_TARGETS + NEWEST


def test_running_releases_are_kept(settings: Settings, repository: DesiredRepository) -> None:
    spec = document("api-000").services["api"]
    warm = Generation(number=1, service="api", slot="blue", role="warm", spec=spec)
    state = EnvironmentState(stack="shop", environment="local", generations=[warm])
    housekeeping.clean_up(settings, repository, housekeeping.releases_in_use([state]))
    assert "api-000" in left(settings)
    assert "api-001" not in left(settings)


def test_release_of_a_one_off_command_is_kept_until_its_end(
    settings: Settings, repository: DesiredRepository
) -> None:
    caller = Identity(os.getpid(), processes.started(os.getpid()) or 0.0)
    owner = Owner("shop", "local", "api", one_off.label(caller, "api-000"), caller.pid)
    home = prepare_home(settings.environment("shop", "local") / "homes", owner, None)
    housekeeping.clean_up(settings, repository, frozenset())
    assert "api-000" in left(settings)
    assert "api-001" not in left(settings)
    home.rmdir()
    housekeeping.clean_up(settings, repository, frozenset())
    assert "api-000" not in left(settings)


@pytest.mark.parametrize(
    ("state", "interval", "cleaned"),
    [
        (State.HOLDING, 86400.0, True),
        (State.STARTING, 86400.0, False),
        (State.STARTING, 0.0, True),
    ],
)
async def test_paused_deployment_does_not_stop_housekeeping(
    settings: Settings,
    repository: DesiredRepository,
    monkeypatch: pytest.MonkeyPatch,
    state: State,
    interval: float,
    cleaned: bool,
) -> None:
    """Nor does any deployment for more than a day. Releases and certificate are those of all
    stacks."""
    monkeypatch.setattr(daemon, "HOUSEKEEPING_INTERVAL_S", interval)
    record = RolloutRecord(commit="c", document=document("api-000"), route=Route(), state=state)
    memory = EnvironmentState(stack="mill", environment="local", rollout=record)
    settings.agent.mkdir()
    lock = observed.hold(settings.agent)
    assert lock is not None
    agent = Agent(settings, lock)
    monkeypatch.setattr(agent, "_states", lambda: [memory])
    await agent._clean_up()
    os.close(lock)
    assert ("api-001" not in left(settings)) is cleaned
    assert certificates.is_intact(settings.certificates) is cleaned


def test_stack_without_history_is_kept(settings: Settings, repository: DesiredRepository) -> None:
    for number in range(NEWEST + 3):
        release(settings, f"api-{number}", age=7200, stack="other")
    housekeeping.clean_up(settings, repository, frozenset())
    assert len(left(settings, "other")) == NEWEST + 3


def test_nothing_is_removed_if_the_history_is_unreadable(
    settings: Settings, repository: DesiredRepository
) -> None:
    before = left(settings)
    (settings.desired / "refs" / "heads" / "main").write_text("0" * 40 + "\n")
    housekeeping.clean_up(settings, repository, frozenset())
    assert left(settings) == before


def test_repository_with_many_loose_objects_is_packed(
    settings: Settings, repository: DesiredRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loose() -> int:
        return int(repository.git.text("count-objects").split()[0])

    before = loose()
    repository.maintain()
    assert loose() == before, "a few are not worth the work"
    monkeypatch.setattr(desired, "LOOSE_OBJECTS", 1)
    repository.maintain()
    assert loose() < before
    assert repository.verify() == []
    assert repository.head() is not None
