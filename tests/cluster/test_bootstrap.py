"""`lapwing bootstrap` on a real API server; the nodes and Argo CD's controller are simulated."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lapwing.kubernetes import kubeconfig, wait
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Reference
from lapwing.kubernetes.wait import WaitLimits
from lapwing.render.kubernetes.addons import ARGO_CD, ROLLOUTS
from tests.cluster.control_plane import NODE, Cluster, wait_until
from tests.installation import LAPWING
from tests.kubernetes import schemas
from tests.needs import require

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
MODULES = (
    (ROLLOUTS, "github.com/argoproj/argo-rollouts@v1.9.2"),
    (ARGO_CD, "github.com/argoproj/argo-cd/v3@v3.5.7"),
)
APPLICATION = "argoproj.io/v1alpha1"
STACK = """\
stack: shop
services: {web: {image: "shop/web:v1", route: /, secrets: [KEY]}}
environments:
  kind: {target: kubernetes, rollouts: true}
  production:
    target: kubernetes
    domain: shop.example
    repository: https://git.example/shop.git
    cloud: {provider: gcp, region: us-central1}
"""


@pytest.fixture(scope="module")
def fresh() -> Iterator[Cluster]:
    """A cluster without add-ons."""
    with Cluster(Path(require("cluster"))) as running:
        running.define("kwok.x-k8s.io")
        running.start_nodes()
        labels = {"metadata": {"labels": {"kubernetes.io/os": "linux"}}}
        merge = "application/merge-patch+json"
        running.call("PATCH", f"/api/v1/nodes/{NODE}", labels, merge)
        yield running


@pytest.fixture(scope="module")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifests of the pinned versions, as their projects publish them."""
    folder = tmp_path_factory.mktemp("manifests")
    for addon, module in MODULES:
        shutil.copy(schemas.folder(module) / "manifests/install.yaml", folder / addon.file)
    return folder


def run(cluster: Cluster, folder: Path, *words: str) -> tuple[int, Any]:
    (folder / "lapwing.yaml").write_text(STACK)
    environ = {
        "PATH": "/usr/bin:/bin",
        "LAPWING_HOME": str(folder / "home"),
        "KUBECONFIG": str(cluster.kubeconfig),
    }
    command = [str(LAPWING), "-C", str(folder), "bootstrap", *words, "--output", "json"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def play_argo_cd(api: ApiClient, cluster: Cluster, stop: threading.Event) -> None:
    """Install the chart of External Secrets as Argo CD would: what the command looks for."""
    application = Reference(APPLICATION, "Application", "argocd", "external-secrets")
    while not stop.wait(0.2):
        if api.list(APPLICATION, "Application", "argocd", missing_kind_ok=True):
            break
    else:
        return
    cluster.define("external-secrets.io")
    name = {"name": "external-secrets"}
    api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": name})
    account = {**name, "namespace": "external-secrets"}
    api.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    status = {"health": {"status": "Healthy"}, "sync": {"status": "Synced"}}
    api.patch(application, {"status": status})


def test_bootstrap_installs_argo_cd_with_external_secrets_and_the_root_application(
    fresh: Cluster, manifests: Path, tmp_path: Path
) -> None:
    stop = threading.Event()
    with ApiClient(kubeconfig.read([fresh.kubeconfig]), {}) as api:
        argo = threading.Thread(target=play_argo_cd, args=(api, fresh, stop))
        argo.start()
        try:
            status, first = run(fresh, tmp_path, "-e", "production", "--manifests", str(manifests))
        finally:
            stop.set()
            argo.join()
        checks = {c["check"]: c for c in first}
        failed = [c for c in first if not c["ok"]]
        # No node of the simulation measures anything.
        assert [c["check"] for c in failed] == ["metrics API responds"], failed
        assert status == 1
        assert checks["argo-cd is installed"]["seen"] == ARGO_CD.version
        assert checks["zones of the load balancer's endpoint group"]["seen"].startswith("none")
        root = api.get(Reference(APPLICATION, "Application", "argocd", "shop-root"))
        assert root is not None
        assert root["spec"]["source"]["repoURL"] == "https://git.example/shop.git"
        workloads = [
            w
            for kind in ("Deployment", "StatefulSet")
            for space in ("argocd", "argo-rollouts")
            for w in api.list("apps/v1", kind, space)
        ]
        assert len(workloads) == 8
        for workload in workloads:
            [container] = workload["spec"]["template"]["spec"]["containers"]
            assert container["resources"]["requests"]["memory"], workload["metadata"]["name"]
            assert not container["image"].endswith(":latest")

        edge = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": "shop-edge",
                "namespace": "shop-production",
                "annotations": {
                    "cloud.google.com/neg-status": '{"zones": ["us-central1-b", "us-central1-a"]}'
                },
            },
            "spec": {"ports": [{"port": 8080}]},
        }
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop-production"}}
        for thing in (space, edge):
            api.create(thing)
        dex = Reference("apps/v1", "Deployment", "argocd", "argocd-dex-server")
        api.patch(dex, {"spec": {"replicas": 1}})  # A user has set up SSO.
        versions = {
            w["metadata"]["uid"]: w["metadata"]["generation"] + (Reference.of(w) == dex)
            for w in workloads
        }
        _, second = run(fresh, tmp_path, "-e", "production", "--manifests", str(manifests))
        checks = {c["check"]: c for c in second}
        zones = checks["zones of the load balancer's endpoint group"]["seen"]
        assert zones == 'edge_zones = {production = ["us-central1-a", "us-central1-b"]}'
        for workload in workloads:
            again = api.get(Reference.of(workload))
            assert again is not None
            assert again["metadata"]["generation"] == versions[workload["metadata"]["uid"]]


def test_add_on_of_others_is_used_unchanged(
    fresh: Cluster, manifests: Path, tmp_path: Path
) -> None:
    with ApiClient(kubeconfig.read([fresh.kubeconfig]), {}) as api:
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argo-rollouts"}})
        reference = Reference("apps/v1", "Deployment", "argo-rollouts", "argo-rollouts")
        api.delete(reference)
        labels = {"app": "other"}
        pod = {"containers": [{"name": "c", "image": "other/rollouts:v1"}]}
        api.create(
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": reference.name, "namespace": reference.namespace},
                "spec": {
                    "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": pod},
                },
            }
        )
        fresh.define("argoproj.io")
        wait.wait_until_ready(api, [reference], limits=WaitLimits(deadline=180.0))
        _, found = run(fresh, tmp_path, "-e", "kind", "--manifests", str(manifests))
        checks = {c["check"]: c for c in found}
        assert checks["argo-rollouts is installed"]["seen"] == "installed by others, not changed"
        assert checks["argo-rollouts is installed"]["ok"]
        assert checks["metrics-server is installed"]["ok"]
        kept = api.get(reference)
        assert kept is not None
        assert kept["spec"]["template"]["spec"]["containers"][0]["image"] == "other/rollouts:v1"


def test_argo_cd_in_another_namespace_is_refused(
    fresh: Cluster, manifests: Path, tmp_path: Path
) -> None:
    labels = {
        "app.kubernetes.io/name": "argocd-application-controller",
        "app.kubernetes.io/component": "application-controller",
        "app.kubernetes.io/part-of": "argocd",
    }
    pod = {"containers": [{"name": "c", "image": "other/argocd:v1"}]}
    with ApiClient(kubeconfig.read([fresh.kubeconfig]), {}) as api:
        api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gitops"}})
        controller = {
            "apiVersion": "apps/v1",
            "kind": "StatefulSet",
            "metadata": {"name": "prod-controller", "namespace": "gitops", "labels": labels},
            "spec": {
                "serviceName": "prod-controller",
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }
        api.create(controller)
        words = ("-e", "production", "--manifests", str(manifests))
        status, error = run(fresh, tmp_path, *words)
        assert status == 1
        assert "StatefulSet prod-controller in the namespace gitops" in json.dumps(error)
        api.delete(Reference.of(controller))
        wait_until(lambda: api.get(Reference.of(controller)) is None, "the deletion")


def test_render_only_writes_everything_that_is_applied(
    manifests: Path, tmp_path: Path, fresh: Cluster
) -> None:
    folder = tmp_path / "rendered"
    words = ("-e", "production", "--render-only", str(folder), "--manifests", str(manifests))
    status, written = run(fresh, tmp_path, *words)
    assert status == 0
    assert written["written"] == [
        "1-argo-rollouts-1.9.2.yaml",
        "2-argo-cd-3.5.7.yaml",
        "3-applications.yaml",
    ]
    kinds = [
        t["kind"]
        for path in sorted(folder.glob("*.yaml"))
        for t in yaml.load_all(path.read_text(), yaml.CSafeLoader)
    ]
    assert kinds.count("Application") == 2
    assert kinds.count("CustomResourceDefinition") == 8
