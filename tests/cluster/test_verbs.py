"""The verbs as people call them, on a real API server."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from tests.cluster.control_plane import Cluster, wait_until
from tests.cluster.test_rollouts import deploy
from tests.installation import LAPWING

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


def test_held_deployment_is_promoted_after_confirmation(
    api: ApiClient, cluster: Cluster, scope: Scope, tmp_path: Path
) -> None:
    place = Scope(scope.stack, "staging", f"{scope.stack}-staging")
    (tmp_path / "lapwing.yaml").write_text(
        f"stack: {scope.stack}\n"
        "services: {api: {image: 'shop/api:v1', route: /}}\n"
        "environments: {staging: {target: kubernetes, domain: shop.example}}\n"
    )
    environ = {
        "PATH": "/usr/bin:/bin",
        "LAPWING_HOME": str(tmp_path / "home"),
        "KUBECONFIG": str(cluster.kubeconfig),
    }

    def call(*arguments: str) -> tuple[int, Any]:
        done = subprocess.run(
            [str(LAPWING), *arguments, "-e", "staging", "--output", "json", "-C", str(tmp_path)],
            env=environ,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        return done.returncode, json.loads(done.stdout)

    assert call("status")[0] == 1
    deploy(api, place, "shop/api:v1", autoPromotionEnabled=False)
    deploy(api, place, "shop/api:v2", autoPromotionEnabled=False)
    status, shown = call("status")
    assert status == 0
    assert shown["url"] == ""  # The control plane is local: its domain is not reachable.
    assert shown["services"][0]["phase"] == "held"
    assert shown["services"][0]["active"]["release"] == "api:v1"
    assert shown["services"][0]["idle"]["release"] == "api:v2"
    status, refused = call("promote", "--context", "production")
    assert (status, refused["error"]["code"]) == (2, "context")
    status, promoted = call("promote")
    assert (status, promoted["kind"], promoted["outcome"]) == (0, "promote", "in-progress")
    assert promoted["rollout"]["services"] == ["api"]
    wait_until(
        lambda: call("status")[1]["services"][0]["active"]["release"] == "api:v2", "v2 is active"
    )
    assert call("abort")[0] == 1
