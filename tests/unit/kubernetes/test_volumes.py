"""Volumes that grow: what is reported if the API server does not delete the StatefulSet."""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import Mock

import pytest

from lapwing.errors import ClusterError
from lapwing.kubernetes import volumes
from lapwing.kubernetes.client import ApiClient


def database(storage: str) -> dict[str, Any]:
    template = {
        "metadata": {"name": "data"},
        "spec": {"resources": {"requests": {"storage": storage}}},
    }
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
