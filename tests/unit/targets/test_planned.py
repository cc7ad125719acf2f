"""Planned changes: which earlier deployment a rollback restores."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from msgspec import UNSET, UnsetType

from lapwing.desired.history import ROLLBACK_TARGETS, entries_to_keep, history, last_failure
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import StateError, UsageError
from lapwing.observed.status import RolloutStatus, Status
from lapwing.plan.model import Access, Deployment, DeploymentKind, Document, Maintenance, Service
from lapwing.targets import planned
from lapwing.targets.base import EnvironmentRef

REF = EnvironmentRef("shop", "local")


def commit(
    repository: DesiredRepository,
    release: str,
    outcome: str,
    access: Access | UnsetType = UNSET,
) -> str:
    service = Service(kind="web", release=release, revision="r", access=access)
    document = Document(
        stack="shop",
        environment="local",
        deployment=Deployment(actor="a"),
        services={"api": service},
    )
    made = repository.commit(document, expected=repository.newest("shop", "local"))
    repository.record_outcome(made, outcome)
    return made


@pytest.mark.parametrize("digits", [7, 12, 40])
def test_rollback_to_a_commit_or_a_release(digits: int, tmp_path: Path) -> None:
    repository = DesiredRepository(tmp_path / "desired")
    first = commit(repository, "api-1", "succeeded")
    commit(repository, "api-2", "succeeded")
    commit(repository, "api-3", "succeeded")
    for wanted in (first[:digits], "api-1"):
        plan = planned.rollback(repository, REF, "a", release=wanted)
        assert plan.document.services["api"].release == "api-1"
        assert plan.document.deployment.restores == first


def test_rollback_keeps_the_present_access(tmp_path: Path) -> None:
    repository = DesiredRepository(tmp_path / "desired")
    commit(repository, "api-1", "succeeded")
    limited = Access(allow=("192.0.2.0/24",))
    commit(repository, "api-2", "succeeded", access=limited)
    for services in ((), ("api",)):
        api = planned.rollback(repository, REF, "a", services=services).document.services["api"]
        assert (api.release, api.access) == ("api-1", limited)


def test_rollback_after_a_change_of_access_only_is_refused(tmp_path: Path) -> None:
    repository = DesiredRepository(tmp_path / "desired")
    commit(repository, "api-1", "succeeded")
    with pytest.raises(StateError, match="There is no earlier deployment"):
        planned.rollback(repository, REF, "a")
    commit(repository, "api-1", "succeeded", access=Access(allow=("192.0.2.0/24",)))
    with pytest.raises(StateError, match="have the current release") as caught:
        planned.rollback(repository, REF, "a")
    assert "such as `access`, which a rollback keeps" in str(caught.value.hint)
    with pytest.raises(StateError, match="of shop/local have the current release of api"):
        planned.rollback(repository, REF, "a", services=("api",))


def test_commit_that_cannot_be_restored_is_refused(tmp_path: Path) -> None:
    repository = DesiredRepository(tmp_path / "desired")
    same = commit(repository, "api-1", "succeeded")
    failed = commit(repository, "api-2", "rolled-back")
    again = commit(repository, "api-1", "succeeded")
    for wanted, told in (
        (failed, r"did not succeed \(outcome: rolled-back\)"),
        (again, "is the current deployment"),
        (same, "cannot be restored: it has no services, or the same as the current"),
        ("0" * 7, "No successful deployment of shop/local had release 0000000"),
    ):
        with pytest.raises(UsageError, match=told):
            planned.rollback(repository, REF, "a", release=wanted)


@pytest.mark.parametrize(
    ("kind", "listed"),
    [("deploy", ["api", "migrate"]), ("rollback", ["api"]), ("abort", ["api"])],
)
def test_only_a_deployment_lists_jobs_because_others_do_not_run_them(
    kind: DeploymentKind, listed: list[str]
) -> None:
    def document(release: str) -> Document:
        services = {
            "api": Service(kind="web", release=f"api-{release}", revision="r"),
            "migrate": Service(kind="job", release=f"migrate-{release}", revision="r"),
        }
        act = Deployment(actor="a", kind=kind)
        return Document(stack="shop", environment="local", deployment=act, services=services)

    plan = planned.PlannedChange(document("1"), None, document("2"))
    assert [c.name for c in plan.changes] == listed


def test_maintenance_is_kept_by_a_rollback_and_an_abort_and_hides_no_deployment(
    tmp_path: Path,
) -> None:
    repository = DesiredRepository(tmp_path / "desired")
    commit(repository, "api-1", "succeeded")
    running = commit(repository, "api-2", "succeeded")
    failed = commit(repository, "api-3", "failed")
    for number in range(ROLLBACK_TARGETS):
        page = Maintenance(actor="a", since="2026-01-02T03:04:05Z", page=f"<p>{number}")
        plan = planned.maintenance(repository, REF, "a", page)
        made = repository.commit(plan.document, expected=plan.expected)
        repository.record_outcome(made, "succeeded")
    again = planned.maintenance(repository, REF, "b", msgspec.structs.replace(page, actor="b"))
    assert again.changes == []
    assert again.document.maintenance == page
    status = Status(stack="shop", environment="local", url="", commit=running)
    status.rollout = RolloutStatus(commit=made, state="holding")
    for undone in (
        planned.rollback(repository, REF, "a"),
        planned.abort(repository, status, REF, "a"),
    ):
        assert undone.document.maintenance == page
        assert undone.document.services["api"].release == "api-2"
    failure = last_failure(repository, "shop", "local")
    assert failure is not None
    assert failure.commit == failed
    entries = history(repository, "shop", "local")
    assert running in [e.commit for e in entries_to_keep(entries)]
    assert entries[0].message == "maintenance on shop/local"
