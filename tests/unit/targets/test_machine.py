"""The target `machine`: what it returns and reports without an agent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lapwing.observed import agent as observed
from lapwing.observed import status
from lapwing.observed.status import Event, RolloutStatus, ServiceStatus, SlotStatus, Status
from lapwing.plan.model import Deployment, Document
from lapwing.settings import Settings
from lapwing.stack.load import StackFile
from lapwing.targets import local_agent
from lapwing.targets.base import Silent, Verb
from lapwing.targets.local_agent import Followed
from lapwing.targets.machine import MachineTarget
from lapwing.targets.machine_status import correct
from lapwing.targets.planned import PlannedChange

COMMIT = "c" * 40
DOCUMENT = Document(stack="shop", environment="local", deployment=Deployment(actor="a"))
SAME = PlannedChange(DOCUMENT, COMMIT, DOCUMENT)


class Progress(Silent):
    """Collects the steps that are shown."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def progress(self, text: str) -> None:
        self.steps.append(text)


def target(folder: Path, reporter: Progress | None = None) -> MachineTarget:
    (folder / "lapwing.yaml").write_text("stack: shop\n")
    settings = Settings(folder / "home")
    return MachineTarget(StackFile(folder / "lapwing.yaml"), "local", settings, reporter)


@pytest.mark.parametrize("state", ["starting", "undoing"])
def test_same_content_in_progress_is_followed(
    state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = target(tmp_path)
    folder = machine.settings.environment("shop", "local")
    folder.mkdir(parents=True)
    rollout = RolloutStatus(commit=COMMIT, state=state)
    status.write(folder, Status(stack="shop", environment="local", url="", rollout=rollout))
    end = Followed(COMMIT, "rolled-back", "api: crashed.")
    monkeypatch.setattr(local_agent, "follow", lambda *_: end)
    result = machine._unchanged("up", SAME)
    assert (result.outcome, result.commit, result.reason) == (end.outcome, COMMIT, end.reason)


def test_same_content_that_is_running_is_unchanged(tmp_path: Path) -> None:
    machine = target(tmp_path)
    folder = machine.settings.environment("shop", "local")
    folder.mkdir(parents=True)
    status.write(folder, Status(stack="shop", environment="local", url="", commit=COMMIT))
    result = machine._unchanged("up", SAME)
    assert (result.outcome, result.commit, result.reason) == ("unchanged", COMMIT, None)


@pytest.mark.parametrize(
    ("verb", "steps"),
    [
        ("up", ["starting replicas", "switching traffic"]),
        ("down", ["stopping traffic and replicas"]),
    ],
)
def test_steps_are_those_of_the_verb(verb: Verb, steps: list[str], tmp_path: Path) -> None:
    progress = Progress()
    machine = target(tmp_path, progress)
    for state in ("starting", "switching"):
        machine._report(Event(time=0, kind="state", text="", state=state), verb)
    assert progress.steps == steps


def test_too_few_requests_are_reported_by_the_result_only(tmp_path: Path) -> None:
    progress = Progress()
    text = "api: 0 requests in the analysis window, too few to analyse"
    target(tmp_path, progress)._report(Event(time=0, kind="note", text=text), "deploy")
    assert progress.steps == []


def test_stop_that_takes_longer_than_shown_is_shown_again(tmp_path: Path) -> None:
    """An old release that is kept running may have a longer `stop_grace` than the new one."""
    settings = Settings(tmp_path)
    settings.agent.mkdir()
    agent = observed.hold(settings.agent)
    assert agent is not None
    folder = tmp_path / "environments/shop/local"
    folder.mkdir(parents=True)
    shown: list[str] = []

    def write(**stopping: float) -> None:
        status.write(
            folder,
            Status(stack="shop", environment="local", url="", stopping=stopping, updated=1000.0),
        )

    def progress(text: str) -> None:
        shown.append(text)
        later = {"web": 12.0} if len(shown) == 1 else {}
        write(**later)

    write(web=2.0)
    local_agent.wait_until_stopped(settings, folder, progress)
    os.close(agent)
    assert shown == ["stopping web, up to 2 s", "stopping web, up to 12 s"]


def test_wait_for_the_next_slot_of_a_service_repeats_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = iter([(1000.0, {"web": 10.0}), (1005.0, {"web": 10.0}), (1006.0, {})])

    def advance(_seconds: float = 0.0) -> None:
        updated, stopping = next(steps)
        found = Status(
            stack="shop", environment="local", url="", stopping=stopping, updated=updated
        )
        status.write(tmp_path, found)

    shown: list[str] = []
    advance()
    monkeypatch.setattr("time.sleep", advance)
    local_agent.wait_until_stopped(Settings(tmp_path), tmp_path, shown.append)
    assert shown == ["stopping web, up to 10 s"]


@pytest.mark.parametrize(("agent_running", "phase"), [(True, "crashing"), (False, "stopped")])
def test_phase_of_a_service_whose_replicas_have_just_exited(
    agent_running: bool, phase: str
) -> None:
    """The status on disk is from before they exited."""
    slot = SlotStatus(slot="blue", release="a", revision="r", replicas=1, ready=1, pids=[2**22 + 1])
    service = ServiceStatus(name="api", kind="web", phase="running", active=slot)
    found = Status(stack="shop", environment="local", url="", services=[service])
    [corrected] = correct(found, agent_running=agent_running).services
    assert corrected.phase == phase
    assert corrected.active is not None
    assert corrected.active.ready == 0
