"""Guards: which planned changes are approved, for each verb of each target.

The same history for all: version 1, then 2 of a service with an offline migration. The commits are
in a real repository, because the guards compare a change with what is recorded there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest

from lapwing.desired.repository import DesiredRepository
from lapwing.errors import ConflictError, ContextError, UsageError
from lapwing.kubernetes.applyset import Scope
from lapwing.observed.status import RolloutStatus, Status
from lapwing.plan.model import Deployment, Document, Service
from lapwing.targets import guards, planned
from lapwing.targets.base import ClusterOptions, EnvironmentRef, Silent, Verb
from lapwing.targets.guards import Rules
from lapwing.targets.planned import PlannedChange

REF = EnvironmentRef("shop", "production")
VERBS: list[Verb] = [v for v in get_args(Verb) if v not in ("maintenance", "restore")]
"""`maintenance` is for machines, which have no offline migrations."""
MIGRATION = b"""
apiVersion: batch/v1
kind: Job
metadata: {name: migrate, annotations: {lapwing.dev/offline-migration-of: api}}
"""
IN_PROGRESS = Status(
    stack="shop",
    environment="production",
    url="",
    rollout=RolloutStatus(commit="c", state="holding"),
)
TARGETS: dict[str, Callable[..., Rules]] = {
    "argocd": Rules,
    "kubernetes": lambda **given: Rules(tests_migration=True, **given),
}


def document(image: str, *, hold: bool = False) -> Document:
    service = Service(kind="web", release=image, revision="r", image=image)
    return Document(
        stack="shop",
        environment="production",
        target="kubernetes",
        deployment=Deployment(actor="a", hold=hold),
        services={"api": service},
    )


def manifests(*, offline: bool = True) -> dict[str, bytes]:
    return {"production/manifests/jobs.yaml": MIGRATION if offline else b"kind: Job\n"}


def deployment(
    repository: DesiredRepository, image: str, *, hold: bool = False, offline: bool = True
) -> PlannedChange:
    head = repository.newest("shop", "production")
    before = repository.latest_valid("shop", "production")
    return PlannedChange(document(image, hold=hold), head, before, manifests(offline=offline))


def test_services_of_one_database_and_repository_have_one_version(tmp_path: Path) -> None:
    """A worker of the old image would run with the schema that the new image migrates."""
    repository = DesiredRepository(tmp_path / "desired")
    marks = MIGRATION.replace(b"-of: api", b"-of: api, lapwing.dev/stops: api feeds other")

    def check(feeds: str) -> None:
        made = document("shop/api:2")
        for name, image in (("feeds", feeds), ("other", "shop/other:1")):
            made.services[name] = Service(kind="worker", release=image, revision="r", image=image)
        plan = PlannedChange(made, None, None, {"production/manifests/jobs.yaml": marks})
        guards.check(repository, plan, "deploy")

    check("shop/api:2")
    with pytest.raises(UsageError, match="feeds would run api:1 with the schema of api api:2") as e:
        check("shop/api:1")
    assert "--image feeds=shop/api:2" in str(e.value.hint)


def commit(repository: DesiredRepository, image: str, *, offline: bool = True) -> str:
    plan = deployment(repository, image, offline=offline)
    made = repository.commit(plan.document, expected=plan.expected, files=plan.files)
    repository.record_outcome(made, "succeeded")
    return made


@pytest.fixture
def repository(tmp_path: Path) -> DesiredRepository:
    made = DesiredRepository(tmp_path / "desired")
    commit(made, "api:1")
    commit(made, "api:2")
    return made


def first_commit(repository: DesiredRepository) -> str:
    return repository.git.text("rev-parse", "refs/heads/main~1")


def change(repository: DesiredRepository, verb: Verb) -> PlannedChange:
    """What a verb commits on top of version 2."""
    if verb == "promote":
        return planned.promote(repository, IN_PROGRESS, REF, "a")
    if verb == "down":
        return planned.down(repository, REF, "a")
    if verb == "rollback":
        return planned.rollback(repository, REF, "a")
    if verb == "abort":
        return planned.restore(repository, REF, "a", first_commit(repository))
    return deployment(repository, "api:1")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("verb", VERBS)
def test_older_image_never_runs_on_newer_schema(
    repository: DesiredRepository, verb: Verb, target: str
) -> None:
    plan, rules = change(repository, verb), TARGETS[target]()
    if verb in ("promote", "down"):  # They start no other image.
        assert guards.check(repository, plan, verb, rules).plan is plan
        return
    with pytest.raises(UsageError, match="must not run with a newer schema") as refused:
        guards.check(repository, plan, verb, rules)
    assert "-e production --image api=api:1 --allow-downtime" in str(refused.value.hint)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("verb", ["rollback", "abort"])
def test_permission_for_downtime_does_not_restore_an_older_image(
    repository: DesiredRepository, verb: Verb, target: str
) -> None:
    rules = TARGETS[target](allow_downtime=True)
    with pytest.raises(UsageError, match="must not run with a newer schema"):
        guards.check(repository, change(repository, verb), verb, rules)


@pytest.mark.parametrize("verb", VERBS)
def test_image_that_is_running_already_is_approved(
    repository: DesiredRepository, verb: Verb
) -> None:
    rules = Rules(running=lambda service: {"api:1"} if service == "api" else set())
    plan = change(repository, verb)
    assert guards.check(repository, plan, verb, rules).plan is plan


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("verb", VERBS)
def test_service_without_offline_migration_is_approved(
    tmp_path: Path, verb: Verb, target: str
) -> None:
    repository = DesiredRepository(tmp_path / "other")
    commit(repository, "api:1", offline=False)
    commit(repository, "api:2", offline=False)
    plan = deployment(repository, "api:1", offline=False)
    if verb not in ("deploy", "up"):
        plan = change(repository, verb)
    assert guards.check(repository, plan, verb, TARGETS[target]()).plan is plan


@pytest.mark.parametrize("verb", VERBS)
def test_machine_has_no_migration_to_refuse(tmp_path: Path, verb: Verb) -> None:
    repository = DesiredRepository(tmp_path / "machine")
    for release in ("api-1", "api-2"):
        service = Service(kind="web", release=release, revision="r")
        made = Document(
            stack="shop", environment="production", deployment=Deployment(actor="a"),
            services={"api": service},
        )  # fmt: skip
        head = repository.newest("shop", "production")
        repository.record_outcome(repository.commit(made, expected=head), "succeeded")
    plan = deployment(repository, "x") if verb in ("deploy", "up") else change(repository, verb)
    plan = PlannedChange(plan.document, plan.expected, plan.before)
    assert guards.check(repository, plan, verb).plan is plan


@pytest.mark.parametrize("verb", ["deploy", "up"])
def test_newer_image_with_offline_migration_needs_permission_or_a_test(
    repository: DesiredRepository, verb: Verb
) -> None:
    plan = deployment(repository, "api:3")
    with pytest.raises(UsageError, match="its migrations are offline"):
        guards.check(repository, plan, verb)
    guards.check(repository, plan, verb, Rules(allow_downtime=True))
    guards.check(repository, plan, verb, Rules(tests_migration=True))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("image", "words"),
    [("api:1", "must not run with a newer schema"), ("api:3", "its migrations are offline")],
)
def test_image_is_compared_with_the_last_deployment_after_down(
    repository: DesiredRepository, target: str, image: str, words: str
) -> None:
    plan = planned.down(repository, REF, "a")
    guards.commit(repository, guards.check(repository, plan, "down"))
    with pytest.raises(UsageError, match=words):
        guards.check(repository, deployment(repository, image), "up", TARGETS[target]())
    same = deployment(repository, "api:2")
    assert guards.check(repository, same, "up", TARGETS[target]()).plan is same


def test_newer_image_may_follow_again_after_a_restored_backup(
    repository: DesiredRepository,
) -> None:
    plan = deployment(repository, "api:1")
    allowed = Rules(allow_downtime=True, tests_migration=True)
    guards.commit(repository, guards.check(repository, plan, "deploy", allowed))
    again = deployment(repository, "api:2")
    assert guards.check(repository, again, "deploy", Rules(tests_migration=True)).plan is again


@pytest.mark.parametrize("verb", ["deploy", "up"])
def test_pause_is_refused_where_nothing_can_pause(
    repository: DesiredRepository, verb: Verb
) -> None:
    with pytest.raises(UsageError, match="cannot be paused"):
        guards.check(
            repository, deployment(repository, "api:2", hold=True), verb, Rules(can_hold=False)
        )


@pytest.mark.parametrize("verb", VERBS)
def test_conflict_is_refused(repository: DesiredRepository, verb: Verb) -> None:
    rules = Rules(running=lambda _: {"api:1"})
    checked = guards.check(repository, change(repository, verb), verb, rules)
    commit(repository, "api:3")
    with pytest.raises(ConflictError):
        guards.commit(repository, checked)


def test_removal_without_a_yes_is_refused() -> None:
    with pytest.raises(UsageError, match="Nothing was removed"):
        guards.confirm_removal("Remove?", ClusterOptions(), Silent())
    guards.confirm_removal("Remove?", ClusterOptions(yes=True), Silent())


@pytest.mark.parametrize("verb", VERBS)
def test_context_that_is_not_local_is_refused_without_a_yes(verb: Verb) -> None:
    from lapwing.kubernetes.client import ApiClient
    from lapwing.kubernetes.kubeconfig import ClusterAccess

    scope = Scope("shop", "production", "shop-production")
    with ApiClient(ClusterAccess("production", "https://192.0.2.1"), {}) as api:
        with pytest.raises(ContextError, match="not a local cluster"):
            guards.confirm_context(api, verb, scope, ClusterOptions(), Silent())
        guards.confirm_context(api, verb, scope, ClusterOptions(yes=True), Silent())


class FakeApi:
    """Answers lists of objects by kind."""

    def __init__(self, **kinds: list[dict[str, Any]]) -> None:
        self.kinds = kinds

    def list(self, _version: str, kind: str, *_: str, **__: bool) -> list[dict[str, Any]]:
        return self.kinds.get(kind, [])


def workload(name: str, image: str, **metadata: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": "api", "app.kubernetes.io/component": "web"}
    labels |= metadata.pop("labels", {})
    template = {"spec": {"containers": [{"image": image}]}}
    return {
        "metadata": {"name": name, "uid": name, "labels": labels, **metadata},
        "spec": {"template": template},
    }


def rollout_in_progress(*, old_is_running: bool, offline: bool = True) -> Any:
    """A Rollout from version 1 to 2, whose old replicas run or were stopped for a migration."""
    rollout = workload("api", "api:2")
    rollout |= {"kind": "Rollout", "status": {"blueGreen": {"activeSelector": "one"}}}
    owner = [{"uid": "api"}]
    old = workload(
        "rs", "api:1", labels={"rollouts-pod-template-hash": "one"}, ownerReferences=owner,
        annotations={"rollout.argoproj.io/revision": "1"},
    )  # fmt: skip
    pod = workload("pod", "", ownerReferences=[{"uid": "rs"}])
    pod["spec"] = {"containers": [{"image": "api:1"}]}
    pod["status"] = {"conditions": [{"type": "Ready", "status": "True"}]}
    annotations = {"lapwing.dev/offline-migration-of": "api"} if offline else {}
    job = {"metadata": {"name": "migrate", "annotations": annotations}}
    pods = [pod] if old_is_running else []
    return FakeApi(Rollout=[rollout], ReplicaSet=[old], Pod=pods, Job=[job])


def test_abort_in_the_cluster_starts_no_older_image_on_a_newer_schema() -> None:
    scope = Scope("shop", "production", "shop-production")
    with pytest.raises(
        UsageError, match="api api:2 may have migrated its database, and api:1 must"
    ):
        guards.check_rollouts(rollout_in_progress(old_is_running=False), scope)


@pytest.mark.parametrize(
    "api",
    [
        rollout_in_progress(old_is_running=True),
        rollout_in_progress(old_is_running=False, offline=False),
    ],
)
def test_abort_in_the_cluster_is_approved_without_a_migration(api: Any) -> None:
    guards.check_rollouts(api, Scope("shop", "production", "shop-production"))
