"""Rendered manifests before the validators that others wrote, with the published schemas.

`.ci/install-kubernetes-validators` makes what these need.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lapwing.render.kubernetes import render
from tests.needs import require
from tests.unit.render.clusters import cases, cluster_environment

UNPUBLISHED = (
    "BackendConfig,FrontendConfig,GCPBackendPolicy,GCPGatewayPolicy,HealthCheckPolicy,"
    "ManagedCertificate"
)
"""Kinds of GKE, whose schemas are in no module that can be fetched."""
EXCEPTIONS = {
    "container-resources": "CPU has no limit on purpose: a limit throttles a pod beside idle "
    "cores. Memory has one.",
    "container-image-pull-policy": "Images are named by version or digest, which do not move; a "
    "registry that is away must not keep a pod from starting again.",
    "container-security-context-user-group-id": "It wants numbers above 10,000. Official images "
    "own their folders as 999 or 100; no host user is meant, as no host path is mounted.",
    "pod-probes-identical": "Without a health path both ask for an open port; liveness bears it "
    "for longer than readiness.",
    "networkpolicy-targets-pod": "Pods of smoke tests are made by analyses, which it does not "
    "know; that other selectors meet their pods is tested in tests/unit/render.",
}
"""Checks of kube-score that are not followed, with the reason."""

CHECKOV_EXCEPTIONS = {
    "CKV_K8S_8": "A worker listens on no port that could be asked; it lives while it runs.",
    "CKV_K8S_9": "The same: a worker is ready when it runs.",
    "CKV_K8S_11": "CPU has no limit on purpose: see container-resources.",
    "CKV_K8S_15": "Images are named by version or digest: see container-image-pull-policy.",
    "CKV_K8S_35": "Programs read secrets from variables, as on a machine; no service can list "
    "those of another, and there is no token to ask the API with.",
    "CKV_K8S_40": "It wants users above 10,000: see container-security-context-user-group-id.",
    "CKV_K8S_43": "Digests are what a registry answers with: an image that is named by one is "
    "rendered so, and stack files of examples name versions.",
}
"""Checks of checkov that are not followed, with the reason."""


def written(case: str, environment: str, folder: Path) -> list[str]:
    """The files of a golden case, written; those of Argo CD too."""
    made = cluster_environment(case, environment)
    texts = {**render.files(made), **render.argo_files(made)}
    if made.is_argo and made.settings.repository:
        texts["root.yaml"] = render.root_file(made)
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [str(folder / name) for name in texts]


@pytest.mark.parametrize(("case", "environment"), cases())
def test_kubeconform_accepts_manifests(case: str, environment: str, tmp_path: Path) -> None:
    conform, schemas = require("kubeconform"), require("kubernetes-schemas")
    where = f"{schemas}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json"
    said = subprocess.run(
        [conform, "-strict", "-output", "json", "-summary", "-skip", UNPUBLISHED,
         "-schema-location", where, *written(case, environment, tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    answer = json.loads(said.stdout)
    assert answer.get("resources", []) == []
    assert said.returncode == 0, said.stderr
    assert answer["summary"]["valid"] > 5


def test_kubeconform_rejects_unknown_key(tmp_path: Path) -> None:
    conform, schemas = require("kubeconform"), require("kubernetes-schemas")
    where = f"{schemas}/{{{{.Group}}}}/{{{{.ResourceKind}}}}_{{{{.ResourceAPIVersion}}}}.json"
    for name in written("company-inc", "production", tmp_path):
        text = Path(name).read_text().replace("scaleDownDelaySeconds", "scaleDownDelay")
        Path(name).write_text(text)
    said = subprocess.run(
        [conform, "-strict", "-schema-location", where, str(tmp_path / "workloads.yaml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 1
    assert "scaleDownDelay" in said.stdout


def as_deployment(tree: dict[str, Any]) -> dict[str, Any]:
    """A Rollout as the Deployment that it is but for its strategy: kube-score knows no Rollouts,
    and would not look into their pods."""
    if tree["kind"] == "HorizontalPodAutoscaler":
        kind = {"kind": "Deployment", "apiVersion": "apps/v1"}
        spec = {**tree["spec"], "scaleTargetRef": {**tree["spec"]["scaleTargetRef"], **kind}}
        return {**tree, "spec": spec}
    if tree["kind"] != "Rollout":
        return tree
    spec = {k: v for k, v in tree["spec"].items() if k != "strategy"}
    return {**tree, "kind": "Deployment", "apiVersion": "apps/v1", "spec": spec}


@pytest.mark.parametrize(("case", "environment"), cases())
def test_kube_score_reports_nothing_critical(case: str, environment: str, tmp_path: Path) -> None:
    score = require("kube-score")
    everything = tmp_path / "everything.json"
    trees = [as_deployment(t) for t in render.objects(cluster_environment(case, environment))]
    everything.write_text("\n---\n".join(json.dumps(t) for t in trees))
    said = subprocess.run(
        [score, "score", "--output-format", "json", str(everything)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    critical = [
        (one["object_name"], check["check"]["id"], [c["summary"] for c in check["comments"] or []])
        for one in json.loads(said.stdout)
        for check in one["checks"]
        if not check["skipped"] and check["grade"] == 1 and check["check"]["id"] not in EXCEPTIONS
    ]
    assert critical == []


def test_checkov_reports_nothing(tmp_path: Path) -> None:
    """All golden clusters at once: most of its time is its start."""
    checkov = require("checkov")
    for case, environment in cases():
        folder = tmp_path / f"{case}-{environment}"
        folder.mkdir()
        for number, tree in enumerate(render.objects(cluster_environment(case, environment))):
            text = json.dumps(as_deployment(tree), indent=1)
            (folder / f"{number}.json").write_text(text)
    said = subprocess.run(
        [checkov, "--framework", "kubernetes", "--compact", "--quiet", "--output", "json",
         "--directory", str(tmp_path), "--skip-check", ",".join(CHECKOV_EXCEPTIONS)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    answer = json.loads(said.stdout)
    failed = answer["results"]["failed_checks"]
    assert [(f["resource"], f["check_id"], f["check_name"]) for f in failed] == []
    assert answer["summary"]["passed"] > 1000
    assert answer["summary"]["parsing_errors"] == 0
