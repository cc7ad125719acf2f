"""Applying to a real API server: what comes, what goes, and what is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from lapwing.errors import DeploymentFailed, KindMissingError, QuotaError, UnmanagedObjectError
from lapwing.kubernetes import Report, apply, wait
from lapwing.kubernetes.apply import ApplyResult
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Reference
from lapwing.kubernetes.wait import WaitLimits
from tests.cluster import objects
from tests.cluster.control_plane import Cluster, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
LIMITS = WaitLimits(deadline=180.0, patience=2.0)


def put(
    api: ApiClient,
    scope: Scope,
    *things: dict[str, Any],
    commit: str = "c1",
    report: Report = lambda _: None,
) -> ApplyResult:
    def ready(references: Sequence[Reference]) -> None:
        wait.wait_until_ready(api, references, limits=LIMITS)

    everything = [objects.namespace(scope), *things]
    return apply.apply_objects(api, scope, everything, commit=commit, wait=ready, report=report)


def test_apply_waits_until_ready_and_is_idempotent(api: ApiClient, scope: Scope) -> None:
    things = [
        objects.config(scope, A="1"),
        objects.workload(scope, "api", "shop/api:v1"),
        objects.workload(scope, "db", "mysql:8.4", replicas=1, kind="StatefulSet"),
        objects.job(scope, "migrate-1", "shop/api:v1", wave=-1),
    ]
    first = put(api, scope, *things)
    assert {r.kind for r in first.changed} == {
        "Namespace", "ConfigMap", "Deployment", "StatefulSet", "Job",
    }  # fmt: skip
    assert put(api, scope, *things).changed == []


def test_namespace_that_is_being_deleted_is_created_again(
    api: ApiClient, cluster: Cluster, scope: Scope
) -> None:
    things = [objects.config(scope, A="1"), objects.job(scope, "migrate-1", "shop/api:v1")]
    first = put(api, scope, *things)
    path = f"/api/v1/namespaces/{scope.namespace}"
    held = {"metadata": {"finalizers": ["shop.example/backup"]}}
    merge = "application/merge-patch+json"
    cluster.call("PATCH", f"{path}/configmaps/settings", held, merge)
    cluster.call("DELETE", path)
    planned = apply.dry_run(api, scope, [objects.namespace(scope), *things])
    assert set(planned.values()) == {"create"}

    reported: list[str] = []

    def release() -> None:
        wait_until(lambda: bool(reported), "the deployment waits")
        cluster.call(
            "PATCH", f"{path}/configmaps/settings", {"metadata": {"finalizers": None}}, merge
        )

    with ThreadPoolExecutor(1) as background:
        done = background.submit(release)
        second = put(api, scope, *things, report=reported.append)
        done.result()
    assert set(second.changed) == set(first.changed)
    assert f"waiting until Namespace {scope.namespace} is deleted" in reported


def test_job_that_is_being_deleted_is_created_again(
    api: ApiClient, cluster: Cluster, scope: Scope
) -> None:
    put(api, scope, objects.job(scope, "migrate", "shop/api:v1"))
    job = objects.job(scope, "migrate", "shop/api:v2")  # The template of a Job cannot be changed.
    path = f"/apis/batch/v1/namespaces/{scope.namespace}/jobs/{job['metadata']['name']}"
    merge = "application/merge-patch+json"
    cluster.call("PATCH", path, {"metadata": {"finalizers": ["shop.example/backup"]}}, merge)
    api.delete(Reference.of(job))
    planned = apply.dry_run(api, scope, [objects.namespace(scope), job])
    assert planned[Reference.of(job)] == "create"
    cluster.call("PATCH", path, {"metadata": {"finalizers": None}}, merge)
    assert Reference.of(job) in put(api, scope, job).changed


def test_prune_keeps_data_and_unmanaged_objects(
    api: ApiClient, cluster: Cluster, scope: Scope
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data", "namespace": scope.namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    old = objects.config(scope, "old", A="1")
    taken = objects.config(scope, "taken", A="1")
    put(api, scope, objects.config(scope, A="1"), old, taken, claim)
    path = f"/api/v1/namespaces/{scope.namespace}/configmaps"
    cluster.call("POST", path, objects.config(scope, "strangers", B="1"))
    unmarked = {"metadata": {"labels": {"app.kubernetes.io/managed-by": "somebody"}}}
    cluster.call("PATCH", f"{path}/taken", unmarked, "application/merge-patch+json")
    done = put(api, scope, objects.config(scope, A="1"))
    assert done.pruned == [Reference.of(old)]
    names = {c["metadata"]["name"] for c in cluster.call("GET", path)["items"]}
    assert {"settings", "strangers", "taken", "lapwing-inventory"} <= names
    assert "old" not in names
    assert api.get(Reference.of(claim)) is not None


def test_unmanaged_object_is_refused(api: ApiClient, cluster: Cluster, scope: Scope) -> None:
    cluster.call("POST", "/api/v1/namespaces", objects.namespace(scope))
    path = f"/api/v1/namespaces/{scope.namespace}/configmaps"
    cluster.call("POST", path, objects.config(scope, A="theirs"))
    with pytest.raises(UnmanagedObjectError, match="ConfigMap settings"):
        put(api, scope, objects.config(scope, "first", B="1"), objects.config(scope, A="ours"))
    assert cluster.call("GET", f"{path}/settings")["data"] == {"A": "theirs"}
    assert cluster.call("GET", f"{path}/first") is None


def test_missing_kind_is_reported_before_any_change(
    api: ApiClient, cluster: Cluster, scope: Scope
) -> None:
    secret = {
        "apiVersion": "external-secrets.io/v1",
        "kind": "ExternalSecret",
        "metadata": {"name": "a", "namespace": scope.namespace},
        "spec": {},
    }
    with pytest.raises(KindMissingError, match="ExternalSecret") as told:
        put(api, scope, objects.config(scope, A="1"), secret)
    assert "External Secrets Operator" in str(told.value.hint)
    assert cluster.call("GET", f"/api/v1/namespaces/{scope.namespace}") is None


def test_manual_changes_are_reset_and_controller_fields_are_kept(
    api: ApiClient, cluster: Cluster, scope: Scope
) -> None:
    deployment = objects.workload(scope, "api", "shop/api:v1", replicas=2)
    put(api, scope, deployment)
    path = f"/apis/apps/v1/namespaces/{scope.namespace}/deployments/api"
    merge = "application/merge-patch+json"
    cluster.call(
        "PATCH", f"{path}?fieldManager=kube-controller-manager", {"spec": {"replicas": 5}}, merge
    )
    cluster.call(
        "PATCH", f"{path}?fieldManager=kubectl-edit", {"spec": {"minReadySeconds": 7}}, merge
    )
    told: list[str] = []
    deployment["spec"]["minReadySeconds"] = 1
    apply.apply_object(
        api,
        scope.with_labels(deployment),
        None,
        told.append,
    )
    spec = cluster.call("GET", path)["spec"]
    assert (spec["replicas"], spec["minReadySeconds"]) == (5, 1)
    assert told
    assert "kubectl-edit" in told[0]
    assert "minReadySeconds" in told[0]


def test_interrupted_apply_is_completed_by_the_next(
    api: ApiClient, cluster: Cluster, scope: Scope
) -> None:
    """The first run dies after its first wave; the second file no longer has what it left."""

    class Died(BaseException):
        pass

    def die(references: Sequence[Reference]) -> None:
        if any(r.name == "early" for r in references):
            raise Died

    early = objects.job(scope, "early", "shop/api:v1", wave=-5)
    late = objects.config(scope, "late", A="1")
    with pytest.raises(Died):
        apply.apply_objects(
            api, scope, [objects.namespace(scope), early, late], commit="c1", wait=die
        )
    assert api.get(Reference.of(early)) is not None
    assert api.get(Reference.of(late)) is None
    done = put(api, scope, late)
    assert done.pruned == [Reference.of(early)]
    assert api.get(Reference.of(late)) is not None


def test_dry_run_changes_nothing_and_lists_every_action(api: ApiClient, scope: Scope) -> None:
    keep, change = objects.config(scope, "keep", A="1"), objects.config(scope, "change", A="1")
    gone, new = objects.config(scope, "gone", A="1"), objects.config(scope, "new", A="1")
    put(api, scope, keep, change, gone)
    change["data"]["A"] = "2"
    told = apply.dry_run(api, scope, [objects.namespace(scope), keep, change, new])
    assert {r.name: what for r, what in told.items()} == {
        scope.namespace: "keep", "keep": "keep", "change": "change", "new": "create",
        "gone": "remove",
    }  # fmt: skip
    found = api.get(Reference.of(change))
    assert found is not None
    assert found["data"] == {"A": "1"}
    assert api.get(Reference.of(new)) is None


def test_crash_loop_is_reported_with_the_last_log_lines(
    api: ApiClient, cluster: Cluster, scope: Scope, tmp_path: Any
) -> None:
    log = tmp_path / "app.log"
    log.write_text(
        "".join(f"2026-01-02T03:04:05.6Z stderr F {line}\n" for line in ("boot", "no such table"))
    )
    logs = {
        "apiVersion": "kwok.x-k8s.io/v1alpha1",
        "kind": "ClusterLogs",
        "metadata": {"name": scope.stack},
        "spec": {
            "selector": {"matchNamespaces": [scope.namespace]},
            "logs": [{"containers": ["app"], "logsFile": str(log), "previousLogsFile": str(log)}],
        },
    }
    cluster.call("POST", "/apis/kwok.x-k8s.io/v1alpha1/clusterlogs", logs)
    with pytest.raises(DeploymentFailed, match="crash loop") as told:
        put(api, scope, objects.workload(scope, "api", "shop/api:crash"))
    assert "exit status 3" in told.value.message
    assert "no such table" in str(told.value.detail)


def test_failed_image_pull_is_reported(api: ApiClient, scope: Scope) -> None:
    with pytest.raises(DeploymentFailed, match="shop/api:missing cannot be pulled") as told:
        put(api, scope, objects.workload(scope, "api", "shop/api:missing"))
    assert "kind load docker-image" in str(told.value.hint)


def test_failed_job_stops_later_waves(api: ApiClient, scope: Scope) -> None:
    after = objects.workload(scope, "api", "shop/api:v2")
    with pytest.raises(DeploymentFailed, match="Job migrate"):
        put(api, scope, objects.job(scope, "migrate", "shop/api:fail", wave=-1), after)
    assert api.get(Reference.of(after)) is None


def test_exceeded_quota_is_reported(api: ApiClient, cluster: Cluster, scope: Scope) -> None:
    cluster.call("POST", "/api/v1/namespaces", objects.namespace(scope))
    hard = {"requests.cpu": "100m", "configmaps": "3"}
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small", "namespace": scope.namespace},
        "spec": {"hard": hard},
    }
    path = f"/api/v1/namespaces/{scope.namespace}/resourcequotas"
    cluster.call("POST", path, quota)

    def counted() -> bool:
        return bool(cluster.call("GET", f"{path}/small").get("status", {}).get("used"))

    wait_until(counted, "the quota is counted")
    with pytest.raises(DeploymentFailed, match="exceeded quota: small") as told:
        put(api, scope, objects.workload(scope, "api", "shop/api:v1", replicas=3))
    assert "larger quota" in str(told.value.hint)
    with pytest.raises(QuotaError, match="exceeded quota"):
        put(api, scope, *[objects.config(scope, f"c{n}", A="1") for n in range(4)])
