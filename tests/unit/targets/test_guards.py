"""Guards: which planned changes are approved, for every verb that restores or deploys."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.errors import ContextError, UsageError
from lapwing.plan.model import Deployment, Document, Service
from lapwing.stack.load import LoadedStack, StackFile
from lapwing.targets import guards
from lapwing.targets.base import ClusterOptions, Silent, Verb
from lapwing.targets.guards import Rules
from lapwing.targets.planned import PlannedChange

STACK = """
stack: shop
services:
  api:
    image: shop/api:1
    route: /
    needs: [db]
    migrate: {run: migrate, mode: offline}
resources:
  db: {kind: mysql}
environments:
  production: {target: kubernetes, domain: shop.example}
"""


@pytest.fixture
def loaded(tmp_path: Path) -> LoadedStack:
    path = tmp_path / "lapwing.yaml"
    path.write_text(STACK)
    return StackFile(path).load("production")


def document(image: str, *, hold: bool = False) -> Document:
    service = Service(kind="web", release=image, revision="r", image=image)
    return Document(
        stack="shop",
        environment="production",
        target="kubernetes",
        deployment=Deployment(actor="a", hold=hold),
        services={"api": service},
    )


def plan(after: str, before: str = "api:2", *, hold: bool = False) -> PlannedChange:
    return PlannedChange(document(after, hold=hold), "c1", document(before))


@pytest.mark.parametrize("allowed", [False, True])
def test_rollback_to_older_image_of_offline_migration_is_refused(
    loaded: LoadedStack, allowed: bool
) -> None:
    with pytest.raises(UsageError, match="must not run with a newer schema") as refused:
        guards.check(plan("api:1"), "rollback", loaded, Rules(allows_migration=allowed))
    assert "--image api=api:1 --allow-downtime" in str(refused.value.hint)


@pytest.mark.parametrize("verb", ["deploy", "up"])
def test_deploy_with_offline_migration_needs_permission(loaded: LoadedStack, verb: Verb) -> None:
    with pytest.raises(UsageError, match="its migrations are offline"):
        guards.check(plan("api:3"), verb, loaded)
    guards.check(plan("api:3"), verb, loaded, Rules(allows_migration=True))


@pytest.mark.parametrize("verb", ["deploy", "up", "promote", "abort", "rollback", "down"])
def test_same_image_is_approved_for_every_verb(loaded: LoadedStack, verb: Verb) -> None:
    same = plan("api:2")
    assert guards.check(same, verb, loaded).plan is same


def test_pause_is_refused_where_nothing_can_pause(loaded: LoadedStack) -> None:
    with pytest.raises(UsageError, match="cannot be paused"):
        guards.check(plan("api:2", hold=True), "deploy", loaded, Rules(can_hold=False))


def test_removal_without_a_yes_is_refused() -> None:
    with pytest.raises(UsageError, match="Nothing was removed"):
        guards.confirm_removal("Remove?", ClusterOptions(), Silent())
    guards.confirm_removal("Remove?", ClusterOptions(yes=True), Silent())


def test_context_that_is_not_local_is_refused_without_a_yes() -> None:
    from lapwing.kubernetes.applyset import Scope
    from lapwing.kubernetes.client import ApiClient
    from lapwing.kubernetes.kubeconfig import ClusterAccess

    scope = Scope("shop", "production", "shop-production")
    with ApiClient(ClusterAccess("production", "https://192.0.2.1"), {}) as api:
        with pytest.raises(ContextError, match="not a local cluster"):
            guards.confirm_context(api, "rollback", scope, ClusterOptions(), Silent())
        guards.confirm_context(api, "rollback", scope, ClusterOptions(yes=True), Silent())
