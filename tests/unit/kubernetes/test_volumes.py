"""Volumes that grow or would change their class: when the StatefulSet is created again."""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import Mock

import pytest

from lapwing.errors import ClusterError, UsageError
from lapwing.kubernetes import volumes
from lapwing.kubernetes.client import ApiClient


def database(storage: str, called: str | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"resources": {"requests": {"storage": storage}}}
    if called:
        spec["storageClassName"] = called
    template = {"metadata": {"name": "data"}, "spec": spec}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "db", "namespace": "shop", "uid": "u1"},
        "spec": {"volumeClaimTemplates": [template]},
    }


def test_statefulset_that_is_not_deleted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volumes, "DELETION_TIMEOUT_S", 0.0)
    live = database("1Gi")
    api = cast(ApiClient, Mock(get=lambda _: live))
    with pytest.raises(ClusterError, match="StatefulSet db was not deleted within 0 s"):
        volumes.grow(api, database("5Gi"), live, lambda _: None)


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [(None, None, False), (None, "standard", True), ("standard", None, True)],
)
def test_class_of_a_volume_may_be_named_or_left_out(
    before: str | None, after: str | None, changes: bool
) -> None:
    claim = {"metadata": {"name": "data-db-0"}, "spec": {"storageClassName": "standard"}}
    api = cast(ApiClient, Mock(get=lambda _: claim))
    assert volumes.check(api, database("1Gi", after), database("1Gi", before)) is changes


def test_another_class_of_a_volume_is_refused() -> None:
    claim = {"metadata": {"name": "data-db-0"}, "spec": {"storageClassName": "standard"}}
    api = cast(ApiClient, Mock(get=lambda _: claim))
    with pytest.raises(UsageError, match="has the storage class standard, which cannot be"):
        volumes.check(api, database("1Gi", "fast"), database("1Gi"))


@pytest.mark.parametrize(
    ("called", "hint"),
    [
        ("standard", "Write `storage_class: standard` for this resource, or move the data"),
        (None, "Remove `storage_class` of this resource, or move the data"),
    ],
)
def test_refused_class_names_what_to_write(called: str | None, hint: str) -> None:
    spec = {"storageClassName": called} if called else {}
    api = cast(ApiClient, Mock(get=lambda _: {"metadata": {"name": "data-db-0"}, "spec": spec}))
    with pytest.raises(UsageError) as refused:
        volumes.check(api, database("1Gi", "fast"), database("1Gi"))
    assert str(refused.value.hint).startswith(hint)
