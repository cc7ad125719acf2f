"""Planned changes: which earlier deployment a rollback restores."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.desired.repository import DesiredRepository
from lapwing.errors import UsageError
from lapwing.plan.model import Deployment, DeploymentKind, Document, Service
from lapwing.targets import planned
from lapwing.targets.base import EnvironmentRef

REF = EnvironmentRef("shop", "local")


def commit(repository: DesiredRepository, release: str, outcome: str) -> str:
    service = Service(kind="web", release=release, revision="r")
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
