"""What is decided from the objects of a cluster: what to prune, what a status means."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from lapwing.errors import ClusterUnreachableError, ContextError
from lapwing.kubernetes import apply, applyset, health, kubeconfig, problems, wait, waves
from lapwing.kubernetes.api_errors import FieldConflictError, api_error
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.health import Health
from lapwing.kubernetes.objects import Reference


def rollout(**status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "api", "namespace": "shop", "generation": 3},
        "spec": {"replicas": 2},
        "status": {"observedGeneration": "3", "availableReplicas": 2, **status},
    }


@pytest.mark.parametrize(
    ("status", "state", "says"),
    [
        ({"phase": "Healthy"}, "ready", "2 of 2"),
        ({"phase": "Healthy", "observedGeneration": "2"}, "progressing", "not seen"),
        ({"phase": "Paused", "pauseConditions": [{"reason": "BlueGreenPause"}]}, "held", ""),
        ({"phase": "Paused", "pauseConditions": []}, "progressing", "resuming"),
        ({"phase": "Degraded", "message": "RolloutAborted"}, "failed", "RolloutAborted"),
        (
            {
                "phase": "Degraded",
                "message": "RolloutAborted",
                "blueGreen": {
                    "prePromotionAnalysisRunStatus": {"status": "Failed", "message": "x"}
                },
            },
            "failed",
            "the smoke tests did not pass: x",
        ),
        (
            {
                "phase": "Degraded",
                "abort": True,
                "stableRS": "old",
                "blueGreen": {"activeSelector": "new"},
            },
            "progressing",
            "returning traffic",
        ),
        (
            {
                "phase": "Degraded",
                "abort": True,
                "stableRS": "old",
                "blueGreen": {
                    "activeSelector": "old",
                    "postPromotionAnalysisRunStatus": {"status": "Failed"},
                },
            },
            "failed",
            "the analysis of live traffic did not pass",
        ),
        ({}, "progressing", ""),
    ],
)
def test_what_the_status_of_a_rollout_means(status: dict[str, Any], state: str, says: str) -> None:
    found = health.judge(rollout(**status))
    assert found.state == state
    assert says in found.text


def test_only_what_left_the_file_is_pruned_and_never_data() -> None:
    kept = {"apiVersion": "v2", "kind": "Thing", "metadata": {"name": "a", "namespace": "shop"}}
    before = [
        Reference("v1", "Thing", "shop", "a"),
        Reference("apps/v1", "Deployment", "shop", "gone"),
        Reference("networking.k8s.io/v1", "Ingress", "shop", "way"),
        Reference("v1", "PersistentVolumeClaim", "shop", "data"),
        Reference("v1", "Namespace", "", "shop"),
    ]
    assert [r.name for r in applyset.to_prune(before, [Reference.of(kept)])] == ["way", "gone"]


def test_an_inventory_reads_back_and_passes_over_nonsense() -> None:
    references = {Reference("v1", "Namespace", "", "shop"), Reference("v1", "Secret", "shop", "a")}
    made = applyset.config_map(Scope("shop", "staging", "shop"), references, "c1")
    assert applyset.references(made) == references
    made["data"]["objects"] += "\nnonsense\n"
    assert applyset.references(made) == references
    assert applyset.references(None) == set()


def test_waves_come_in_order_and_workloads_last_in_theirs() -> None:
    def thing(kind: str, name: str, wave: str | None = None) -> dict[str, Any]:
        annotations = {waves.SYNC_WAVE: wave} if wave else {}
        return {"kind": kind, "metadata": {"name": name, "annotations": annotations}}

    things = [
        thing("Rollout", "api"), thing("AnalysisTemplate", "smoke"), thing("Job", "late", "5"),
        thing("Secret", "early", "-5"), thing("Namespace", "shop"),
    ]  # fmt: skip
    found = [[t["metadata"]["name"] for t in wave] for wave in waves.group_by_wave(things)]
    assert found == [["shop"], ["early"], ["smoke", "api"], ["late"]]


def test_a_field_of_a_controller_is_left_out_and_a_list_is_one_word() -> None:
    thing = {"spec": {"replicas": 2, "ports": [1], "a": {"b": 1}}}
    names = [".spec.replicas", '.spec.ports[name="x"].port', ".spec.missing.b"]
    assert apply.without_fields(thing, names) == {"spec": {"ports": [1], "a": {"b": 1}}}
    assert thing["spec"]["replicas"] == 2


def test_a_conflict_names_who_owns_what() -> None:
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-edit" using apps/v1',
            "field": ".spec.replicas",
        }
    ]
    status = {"reason": "Conflict", "message": "no", "details": {"causes": causes}}
    found = api_error(409, status, "Deployment api")
    assert isinstance(found, FieldConflictError)
    assert found.owners == {"kubectl-edit": (".spec.replicas",)}


@pytest.mark.parametrize(
    ("context", "server", "local"),
    [
        ("kind-shop", "https://127.0.0.1:6443", True),
        ("minikube", "https://192.168.49.2:8443", True),
        ("kind-production", "https://34.1.2.3", False),
        ("production", "https://127.0.0.1:6443", False),
        ("minikube", "https://34.1.2.3", False),
    ],
)
def test_only_kind_and_minikube_on_this_machine_are_safe(
    context: str, server: str, local: bool
) -> None:
    assert kubeconfig.is_local(context, server) is local


def test_a_kubeconfig_that_is_missing_or_lacks_the_context_is_told(tmp_path: Path) -> None:
    with pytest.raises(ClusterUnreachableError, match="No kubeconfig"):
        kubeconfig.read([tmp_path / "config"])
    path = tmp_path / "config"
    path.write_text("contexts: [{name: a, context: {cluster: c, user: u}}]\n")
    with pytest.raises(ContextError, match="no current context"):
        kubeconfig.read([path])
    with pytest.raises(ContextError, match="no context 'b'") as told:
        kubeconfig.read([path], "b")
    assert "Known contexts: a." in str(told.value.hint)


def test_pods_that_cannot_run_are_told_once_each() -> None:
    def pod(name: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
        status = {"name": "app", "image": "shop/api:v1", "state": state, **more}
        return {"metadata": {"name": name}, "status": {"containerStatuses": [status]}}

    pull = {"waiting": {"reason": "ImagePullBackOff"}}
    crash = {"waiting": {"reason": "CrashLoopBackOff"}}
    killed = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
    found = problems.of_pods(
        [pod("a", pull), pod("b", pull), pod("c", crash, lastState=killed, restartCount=2)]
    )
    assert len(found) == 2
    assert all(t.final for t in found)
    assert "out of memory" in found[1].text
    assert found[1].previous


def test_message_of_the_scheduler_has_one_full_stop() -> None:
    message = "0/1 nodes are available: 1 Insufficient cpu."
    condition = {"type": "PodScheduled", "reason": "Unschedulable", "message": message}
    [found] = problems.of_pods([{"metadata": {"name": "a"}, "status": {"conditions": [condition]}}])
    failed = Health("failed", "did not become ready in time", 0, 1)
    error = wait.not_ready_error(cast(ApiClient, None), {Reference.of(rollout()): failed}, [found])
    assert error.message.endswith("nodes are available: 1 Insufficient cpu.")


def test_missing_claim_is_to_be_created() -> None:
    message = '0/1 nodes are available: persistentvolumeclaim "backups" not found.'
    condition = {"type": "PodScheduled", "reason": "Unschedulable", "message": message}
    [found] = problems.of_pods([{"metadata": {"name": "a"}, "status": {"conditions": [condition]}}])
    assert found.hint == "Create this PersistentVolumeClaim in the namespace of the environment."


def test_the_reference_of_an_object() -> None:
    assert str(Reference.of(rollout())) == "Rollout api"
