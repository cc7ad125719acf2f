"""What `lapwing render` makes is taken by a real API server, strictly validated."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lapwing.kubernetes import apply
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.render.kubernetes import render
from lapwing.stack.load import load
from tests.cluster import objects
from tests.cluster.control_plane import Cluster, wait_until
from tests.cluster.stacks import Stack
from tests.needs import require

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
STACK = """
stack: {name}
services:
  api:
    image: registry.example/api:v1
    command: serve
    route: /api
    health: /api/healthz
    port: 8000
    user: 1000
    replicas: {{min: 2, max: 3, cpu: 70%}}
    resources: {{cpu: 250m, memory: 512Mi}}
    needs: [cache]
  work: {{image: "registry.example/work:v1", command: work, user: 1000}}
resources:
  cache: {{kind: redis, version: "7"}}
environments:
  staging: {{target: kubernetes, domain: staging.company.example, rollouts: {rollouts}}}
"""


@pytest.mark.parametrize("rollouts", ["true", "false"])
def test_api_server_accepts_every_rendered_object(
    api: ApiClient, cluster: Cluster, scope: Scope, tmp_path: Path, rollouts: str
) -> None:
    path = tmp_path / "lapwing.yaml"
    path.write_text(STACK.format(name=scope.stack, rollouts=rollouts))
    images = {n: f"registry.example/{n}:v1" for n in ("api", "work")}
    things = render.objects(render.prepare(load(path, "staging"), images))
    [space] = [t for t in things if t["kind"] == "Namespace"]
    name = space["metadata"]["name"]
    cluster.call("POST", "/api/v1/namespaces", space)
    told = apply.dry_run(api, Scope(scope.stack, "staging", name), things)
    assert {r.kind for r, what in told.items() if what == "create"} >= {
        "Rollout" if rollouts == "true" else "Deployment", "Service", "NetworkPolicy",
        "StatefulSet", "HorizontalPodAutoscaler", "PodDisruptionBudget", "ServiceAccount",
    }  # fmt: skip
    for thing in things:
        assert scope.manages(thing), thing["metadata"]


@pytest.mark.parametrize("rollouts", ["true", "false"])
def test_kubectl_applies_rendered_folder_at_once(stack: Stack, rollouts: str) -> None:
    kubectl = require("kubectl")
    text = STACK.format(name=stack.scope.stack, rollouts=rollouts)
    (stack.folder / "lapwing.yaml").write_text(text)
    out = str(stack.folder / "out")
    rendered = stack.call("render", "-o", out)
    assert rendered.returncode == 0, rendered.stderr
    applied = subprocess.run(
        [kubectl, "apply", "--server-side", "-f", out],
        env={**stack.environ, "HOME": str(stack.folder)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert applied.returncode == 0, applied.stderr
    lines = applied.stdout.splitlines()
    assert lines[0].startswith(f"namespace/{stack.scope.namespace} ")
    assert all(line.endswith(" serverside-applied") for line in lines)


BRACES = "{{ user }} and {{{y}}} and {{"


def test_argo_rollouts_reads_braces_as_text(
    api: ApiClient, cluster: Cluster, scope: Scope, tmp_path: Path
) -> None:
    """A template's metrics and arguments as an AnalysisRun: the controller makes the smoke test."""
    smoke = f"{{smoke: [{{get: /, contains: '{BRACES}'}}]}}"
    text = STACK.format(name=scope.stack, rollouts="true")
    path = tmp_path / "lapwing.yaml"
    path.write_text(text.replace("    user: 1000\n", f"    user: 1000\n    rollout: {smoke}\n", 1))
    things = render.objects(render.prepare(load(path, "staging")))
    named = {(t["kind"], t["metadata"]["name"].rpartition("-")[2]): t for t in things}
    template = named["AnalysisTemplate", "smoke"]
    cluster.call("POST", "/api/v1/namespaces", objects.namespace(scope))
    run = {
        "apiVersion": template["apiVersion"],
        "kind": "AnalysisRun",
        "metadata": {"name": "smoke", "namespace": scope.namespace},
        "spec": template["spec"],
    }
    group = f"/apis/argoproj.io/v1alpha1/namespaces/{scope.namespace}/analysisruns"
    cluster.call("POST", group, run)
    wait_until(lambda: bool(api.list("batch/v1", "Job", scope.namespace)), "a job of the analysis")
    [job] = api.list("batch/v1", "Job", scope.namespace)
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert {"name": "CONTAINS", "value": BRACES} in container["env"]
