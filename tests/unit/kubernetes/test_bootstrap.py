"""`lapwing bootstrap`: add-ons that others installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from lapwing.commands import bootstrap
from lapwing.errors import StateError
from lapwing.kubernetes.client import ApiClient
from lapwing.render.kubernetes.addons import METRICS_SERVER
from lapwing.stack.load import load
from lapwing.targets.base import Reporter
from lapwing.targets.cluster import ClusterEnvironment
from tests.unit.render.stacks import written

STACK = """\
stack: shop
services: {web: {image: "shop/web:v1", route: /}}
environments:
  direct: {target: kubernetes, delivery: direct}
  production: {target: kubernetes, cloud: {provider: gcp, region: us-central1}}
"""


class Api:
    """A cluster in which External Secrets was installed with Helm. Nothing can be changed."""

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def version(self) -> str:
        return "v1.34.0"

    def list(self, _version: str, kind: str, namespace: str, labels: str = "", **_: Any) -> Any:
        if (kind, namespace, labels) != (
            "Deployment", "", "app.kubernetes.io/name=external-secrets"
        ):  # fmt: skip
            return []
        return [{"kind": kind, "metadata": {"name": "eso", "namespace": "platform"}}]


def test_external_secrets_of_others_is_refused_before_anything_changes(tmp_path: Path) -> None:
    place = cast(ClusterEnvironment, type("Place", (), {"connect": staticmethod(Api)}))
    loaded = load(written(STACK, tmp_path), "production")
    with pytest.raises(StateError, match="Deployment eso in the namespace platform"):
        bootstrap.bootstrap(loaded, place, tmp_path, cast(Reporter, None))


@pytest.mark.parametrize("available", [0, 1])
def test_add_on_of_others_passes_only_while_its_pods_are_ready(
    available: int, tmp_path: Path
) -> None:
    """metrics-server of the distribution, whose pods may crash."""

    class Others(Api):
        def list(self, _version: str, kind: str, namespace: str, labels: str = "", **_: Any) -> Any:
            metadata = {"name": "metrics-server", "namespace": namespace, "generation": 1}
            status = {"observedGeneration": 1, "updatedReplicas": 1, "availableReplicas": available}
            each = {"apiVersion": _version, "kind": kind, "metadata": metadata, "spec": {}}
            return [{**each, "status": status}] if kind == "Deployment" else []

    loaded = load(written(STACK, tmp_path), "direct")
    cluster = bootstrap.rendered_environment(loaded)
    api = cast(ApiClient, Others())
    check = next(bootstrap._check(api, cluster, [METRICS_SERVER], []))
    assert check.ok is bool(available)
    assert ("0 of 1 pods ready" in check.seen) is not check.ok
