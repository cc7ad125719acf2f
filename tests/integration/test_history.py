"""The history of deployments, read back from a real repository."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from lapwing.agent.outcomes import Outcomes
from lapwing.desired.history import IN_PROGRESS, deployed, history, last_failure
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import ConflictError
from lapwing.plan.model import Deployment, DeploymentKind, Maintenance, Service
from tests.unit.agent.samples import document, service


@pytest.fixture
def repository(tmp_path: Path) -> DesiredRepository:
    return DesiredRepository(tmp_path / "desired.git")


def test_nothing_was_deployed(repository: DesiredRepository) -> None:
    assert history(repository, "shop", "local") == []
    repository.ensure()
    assert history(repository, "shop", "local") == []


def test_deployments_newest_first(repository: DesiredRepository) -> None:
    first = repository.commit(document(api=service("api-1")), expected=None)
    other = msgspec.structs.replace(document(web=service("web-9")), environment="staging")
    repository.commit(other, expected=None)
    act = Deployment(kind="rollback", actor="Ada <a\nLapwing-Actor: eve>", restores=first)
    wanted = msgspec.structs.replace(document(api=service("api-0", revision="r0")), deployment=act)
    second = repository.commit(wanted, expected=first)
    repository.record_outcome(first, "failed", "it broke\nand how \x01 \x00")
    new, old = history(repository, "shop", "local")
    assert (new.commit, old.commit) == (second, first)
    assert (new.kind, new.actor, new.restores) == ("rollback", "Ada <a Lapwing-Actor: eve>", first)
    assert (new.outcome, new.reason) == (IN_PROGRESS, None)
    assert (old.outcome, old.reason) == ("failed", "it broke and how")
    assert new.changed == ("api",)
    assert msgspec.to_builtins(new.services) == {"api": {"release": "api-0", "revision": "r0"}}
    assert new.message == "rollback api api-0 to shop/local"
    assert new.time.endswith("Z")
    assert [e.commit for e in history(repository, "shop", "local", 1)] == [second]


def test_restore_is_one_entry(repository: DesiredRepository) -> None:
    """It consists of two commits: the first stops the environment, the second starts it again."""
    act = Deployment(kind="restore", actor="ada", reason="db from backup B")
    head: str | None = None

    def commit(kind: DeploymentKind = "restore", **services: Service) -> str:
        nonlocal head
        wanted = msgspec.structs.replace(act, kind=kind)
        made = msgspec.structs.replace(document(**services), deployment=wanted)
        head = repository.commit(made, expected=head)
        repository.record_outcome(head, "succeeded")
        return head

    def listed() -> list[tuple[str, str, str]]:
        return [(e.commit, e.kind, e.outcome) for e in history(repository, "shop", "local")]

    first = (commit("deploy", api=service("api-1")), "deploy", "succeeded")
    stopped = (commit(), "restore", IN_PROGRESS)
    assert listed() == [stopped, first]
    second = (commit(api=service("api-1")), "restore", "succeeded")
    assert listed() == [second, first]
    assert history(repository, "shop", "local")[0].message == (
        "restore shop/local: db from backup B"
    )
    newest = history(repository, "shop", "local", 2)
    assert [e.commit for e in newest] == [second[0], first[0]], "of three commits"
    stopped = (commit(), "restore", "aborted")
    deployed = (commit("deploy", api=service("api-2")), "deploy", "succeeded")
    assert listed() == [deployed, stopped, second, first]


def test_last_failure_is_known_until_a_newer_deployment_succeeds(
    repository: DesiredRepository,
) -> None:
    assert last_failure(repository, "shop", "local") is None
    head = None

    def commit(outcome: str, kind: DeploymentKind = "deploy", actor: str = "ada") -> str | None:
        """Returns the reason of the last failure after a deployment with this outcome."""
        nonlocal head
        act = Deployment(kind=kind, actor=actor, restores=head)
        wanted = document(api=service(f"api-{outcome}-{kind}-{actor}"))
        head = repository.commit(msgspec.structs.replace(wanted, deployment=act), expected=head)
        if outcome:
            repository.record_outcome(head, outcome, f"{outcome} {kind}")
        found = last_failure(repository, "shop", "local")
        return None if found is None else found.reason

    assert commit("succeeded") is None
    assert commit("failed") == "failed deploy"
    assert commit("succeeded", "revert", "lapwing") == "failed deploy"
    assert commit("aborted") == "failed deploy"
    assert commit("") == "failed deploy"
    assert commit("succeeded") is None
    assert commit("rolled-back") == "rolled-back deploy"
    assert commit("succeeded", "rollback", "lapwing") == "rolled-back deploy"
    assert commit("succeeded", "rollback") is None


def test_crashing_release_is_condemned_in_each_commit_that_has_it(
    repository: DesiredRepository,
) -> None:
    good, bad = document(api=service("api-1")), document(api=service("api-2"))
    page = Maintenance(actor="ada", since="2026-11-29T09:00:00Z", page="<p>Back soon</p>")
    head = None
    for each in (bad, good, bad, msgspec.structs.replace(bad, maintenance=page), bad):
        head = repository.commit(each, expected=head)
        repository.record_outcome(head, "succeeded")
    assert head is not None
    outcomes = Outcomes(repository, "shop", "local", lambda *_: None)
    asyncio.run(outcomes.condemn(bad, head, "failed", "api was crashing."))
    found = [entry.outcome for entry in history(repository, "shop", "local")]
    assert found == ["failed", "failed", "failed", "succeeded", "succeeded"]


def test_maintenance_is_no_deployment(repository: DesiredRepository) -> None:
    page = Maintenance(actor="ada", since="2026-11-29T09:00:00Z", page="<p>Back soon</p>")
    wanted = document(api=service("api-1"), hold=True)
    head = repository.commit(wanted, expected=None)
    assert deployed(repository, wanted, head) is wanted
    for text in (page, msgspec.structs.replace(page, page="<p>Soon</p>")):
        act = Deployment(kind="maintenance", actor="bob")
        begun = msgspec.structs.replace(wanted, deployment=act, maintenance=text)
        head = repository.commit(begun, expected=head)
    assert deployed(repository, begun, head) == msgspec.structs.replace(wanted, maintenance=text)


@pytest.mark.parametrize("actor", ["<>", "\n", "a\0b", "é <x@y>", "x" * 3000, "\\", '"quoted"'])
def test_any_actor_can_commit(repository: DesiredRepository, actor: str) -> None:
    wanted = msgspec.structs.replace(document(api=service()), deployment=Deployment(actor=actor))
    commit = repository.commit(wanted, expected=None)
    [entry] = history(repository, "shop", "local")
    assert entry.commit == commit
    assert repository.read("shop", "local") == wanted
    assert repository.verify() == []


def test_whoever_is_late_is_told(repository: DesiredRepository) -> None:
    first = repository.commit(document(api=service("api-1")), expected=None)
    for expected in (None, "0" * 40):
        with pytest.raises(ConflictError, match="was committed first"):
            repository.commit(document(api=service("api-2")), expected=expected)
    assert [e.commit for e in history(repository, "shop", "local")] == [first]
