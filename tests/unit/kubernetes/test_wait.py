"""Waiting for objects: outages of the API server, problems that last, and what is reported."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from lapwing.errors import ClusterUnreachableError, DeploymentFailed
from lapwing.kubernetes import wait
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Reference
from lapwing.kubernetes.wait import ResourceWaiter, WaitLimits
from lapwing.system.retry import RetryPolicy

JOB = Reference("batch/v1", "Job", "shop", "migrate")


class Api:
    """A cluster with one Job, which goes through `conditions`; its first calls fail."""

    def __init__(self, *conditions: str, outages: int = 0) -> None:
        self.conditions, self.outages = list(conditions), outages

    def get(self, _reference: Reference) -> dict[str, Any]:
        self._fail()
        kind = self.conditions.pop(0) if len(self.conditions) > 1 else self.conditions[0]
        status = {"conditions": [{"type": kind, "status": "True", "message": "exit status 1"}]}
        return {"kind": "Job", "metadata": {"name": "migrate"}, "status": status}

    def list(self, *_: str) -> list[dict[str, Any]]:
        self._fail()
        return []

    def _fail(self) -> None:
        if self.outages:
            self.outages -= 1
            raise ClusterUnreachableError("unreachable")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "POLL", RetryPolicy(max_delay=0.0))


def waiter(api: Api, reported: list[str]) -> ResourceWaiter:
    return ResourceWaiter(cast(ApiClient, api), lambda: None, reported.append)


def test_a_step_survives_an_outage_that_is_reported_once() -> None:
    reported: list[str] = []
    waiter(Api("Suspended", "Complete", outages=3), reported).ready([JOB])
    assert reported == ["the API server is unreachable", "migrate: waiting for its pod"]


def test_a_long_outage_fails_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "MAX_OUTAGE_S", -1.0)
    with pytest.raises(ClusterUnreachableError):
        waiter(Api("Complete", outages=1), []).ready([JOB])


def test_poll_interval_grows_until_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "POLL", RetryPolicy(first_delay=0.1, max_delay=1.0))
    delays: list[float] = []
    monkeypatch.setattr(time, "sleep", delays.append)
    looks = iter([*["pulling the image"] * 6, "starting", None])
    waiter(Api(), []).until(lambda: next(looks), 60.0)
    assert len(delays) == 7
    assert delays[0] <= 0.1 < 0.5 <= delays[5] <= 1.0
    assert delays[6] <= 0.1


def test_a_step_that_never_ends_times_out() -> None:
    with pytest.raises(DeploymentFailed, match=r"Timed out after 0 s: pods are terminating"):
        waiter(Api("Complete"), []).until(lambda: "pods are terminating", 0)


def test_a_deployment_does_not_wait_for_an_unreachable_cluster() -> None:
    api = cast(ApiClient, Api("Complete", outages=1))
    with pytest.raises(ClusterUnreachableError):
        wait.wait_until_ready(api, [JOB], limits=WaitLimits())


def test_a_job_that_is_deleted_is_not_waited_for() -> None:
    gone = cast(ApiClient, type("Api", (), {"get": staticmethod(lambda _: None)}))
    metadata = {"name": JOB.name, "namespace": JOB.namespace}
    job = {"apiVersion": JOB.version, "kind": JOB.kind, "metadata": metadata}
    with pytest.raises(DeploymentFailed, match="Job migrate was deleted while it was running"):
        ResourceWaiter(gone, lambda: None).complete(job)


def test_pods_are_waited_for_as_long_as_their_grace_periods(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wait, "TERMINATION_TIMEOUT_S", -1.0)
    pod = {"metadata": {"name": "web"}, "spec": {"terminationGracePeriodSeconds": 605}}
    listed: list[list[dict[str, Any]]] = [[], [pod], [pod], [pod]]
    api = cast(ApiClient, type("Api", (), {"list": lambda *_: listed.pop()}))
    reported: list[str] = []
    ResourceWaiter(api, lambda: None, reported.append).no_pods("shop", "app=web")
    assert reported == ["waiting for web to terminate"]
    assert listed == []


def test_deletion_waits_as_long_as_the_grace_periods_of_the_pods(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wait, "TERMINATION_TIMEOUT_S", -1.0)
    metadata = {"uid": "u1", "name": "web", "namespace": "shop"}
    workload = {"kind": "Deployment", "metadata": metadata}
    pod = {
        "metadata": {"name": "web-1", "ownerReferences": [{"uid": "u1"}]},
        "spec": {"terminationGracePeriodSeconds": 605},
    }
    found, pods = [workload], [[], [pod], [pod]]

    class Cluster:
        def get(self, _: Reference) -> dict[str, Any] | None:
            return found.pop() if found else None

        def list(self, _: str, kind: str, __: str) -> list[dict[str, Any]]:
            return pods.pop() if kind == "Pod" else []

        def delete(self, _: Reference, uid: str) -> None:
            assert uid == "u1"

    reported: list[str] = []
    waiter = ResourceWaiter(cast(ApiClient, Cluster()), lambda: None, reported.append)
    reference = Reference("apps/v1", "Deployment", "shop", "web")
    waiter.delete(reference)
    assert reported == [f"{reference} is being deleted", f"pods of {reference} are terminating"]
    assert pods == []


def test_failure_and_deadline_name_the_objects_and_the_reason() -> None:
    failed, pending = cast(ApiClient, Api("Failed")), cast(ApiClient, Api("Suspended"))
    with pytest.raises(DeploymentFailed, match="Job migrate did not become ready: exit status 1"):
        wait.wait_until_ready(failed, [JOB], limits=WaitLimits())
    with pytest.raises(DeploymentFailed, match="within 0 s: waiting for its pod"):
        wait.wait_until_ready(pending, [JOB], limits=WaitLimits(deadline=-1.0))


class Waiting:
    """A cluster with a workload whose pod has not started, its claim, and events about both."""

    def __init__(self, kind: str, phase: str, *events: tuple[str, str, str]) -> None:
        """Each event is the kind of its object, its reason and its message; the last is newest."""
        name = "shop-db-0" if kind == "StatefulSet" else "shop-db-7kx2p"
        spec = {"replicas": 1} if kind == "StatefulSet" else {}
        workload = {"name": "shop-db", "namespace": "shop", "generation": 1}
        status = {"observedGeneration": 1}
        self.workload = {"kind": kind, "metadata": workload, "spec": spec, "status": status}
        owner = {"kind": kind, "name": "shop-db"}
        metadata = {"name": name, "uid": "pod", "ownerReferences": [owner]}
        volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data-shop-db-0"}}]
        creating = {"name": "db", "state": {"waiting": {"reason": "ContainerCreating"}}}
        self.objects = {
            "Pod": [
                {
                    "metadata": metadata,
                    "spec": {"volumes": volumes},
                    "status": {"phase": "Pending", "containerStatuses": [creating]},
                }
            ],
            "PersistentVolumeClaim": [
                {"metadata": {"name": "data-shop-db-0", "uid": "claim"}, "status": {"phase": phase}}
            ],
            "Event": [
                {
                    "metadata": {"resourceVersion": str(number)},
                    "involvedObject": {
                        "kind": about,
                        "namespace": "shop",
                        "name": name if about == "Pod" else "data-shop-db-0",
                        "uid": "pod" if about == "Pod" else "claim",
                    },
                    "lastTimestamp": f"2026-01-01T00:00:{number:02}Z",
                    "type": "Normal" if reason == "FailedBinding" else "Warning",
                    "reason": reason,
                    "message": message,
                }
                for number, (about, reason, message) in enumerate(events)
            ],
        }

    def get(self, _: Reference) -> dict[str, Any]:
        return self.workload

    def list(self, _: str, kind: str, *__: str) -> list[dict[str, Any]]:
        return self.objects.get(kind, [])


def waited_for(cluster: Waiting) -> tuple[str, DeploymentFailed]:
    """The error at the deadline, and the line of progress before."""
    api, reported = cast(ApiClient, cluster), list[str]()
    references = [Reference("apps/v1", cluster.workload["kind"], "shop", "shop-db")]
    with pytest.raises(DeploymentFailed) as failed:
        wait.wait_until_ready(api, references, limits=WaitLimits(deadline=-1.0))

    def report(text: str) -> None:
        reported.append(text)
        cluster.workload["kind"] = "ConfigMap"  # It is ready.

    wait.wait_until_ready(api, references, limits=WaitLimits(), report=report)
    return reported[0], failed.value


CLAIM, NO_CLASS = "PersistentVolumeClaim", 'storageclass.storage.k8s.io "fast" not found'
UNBOUND = "no persistent volumes available for this claim and no storage class is set"
NO_SECRET = 'MountVolume.SetUp failed for volume "tls" : secret "tls" not found'


@pytest.mark.parametrize("kind", ["Job", "StatefulSet"])
@pytest.mark.parametrize(
    ("events", "reason"),
    [
        (
            [(CLAIM, "ProvisioningFailed", NO_CLASS), (CLAIM, "ExternalProvisioning", "waiting")],
            f"volume data-shop-db-0 is not provisioned: {NO_CLASS}",
        ),
        (
            [(CLAIM, "FailedBinding", UNBOUND)],
            f"volume data-shop-db-0 is not provisioned: {UNBOUND}",
        ),
        ([("Pod", "Scheduled", "assigned"), ("Pod", "FailedMount", NO_SECRET)], NO_SECRET),
        ([("Pod", "FailedAttachVolume", "Multi-Attach error")], "Multi-Attach error"),
    ],
)
def test_reason_of_a_volume_that_is_not_ready_is_reported(
    kind: str, events: list[tuple[str, str, str]], reason: str
) -> None:
    line, error = waited_for(Waiting(kind, "Pending", *events))
    assert reason in line
    assert reason in error.message
    of_claim = events[0][0] == CLAIM
    command = "kubectl get storageclass" if of_claim else "kubectl describe pod shop-db"
    assert command in str(error.hint)
    assert of_claim or "-n shop`" in str(error.hint)


@pytest.mark.parametrize(
    ("phase", "events"),
    [
        ("Bound", [(CLAIM, "ProvisioningFailed", NO_CLASS)]),
        ("Bound", [("Pod", "FailedMount", NO_SECRET), ("Pod", "Pulling", "pulling the image")]),
    ],
)
def test_solved_problem_of_a_volume_is_not_reported(
    phase: str, events: list[tuple[str, str, str]]
) -> None:
    line, error = waited_for(Waiting("StatefulSet", phase, *events))
    assert line == "shop-db: 0 of 1 pods ready"
    assert "not found" not in error.message


@pytest.mark.parametrize(
    ("replicas", "state"), [(0, "failed"), (1, "progressing"), (2, "ready"), (3, "ready")]
)
def test_autoscaler_is_ready_when_its_workload_has_the_minimum(replicas: int, state: str) -> None:
    """Its status may still be that of an upgrade with an outage."""
    scaler = Reference("autoscaling/v2", "HorizontalPodAutoscaler", "shop", "api")
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"}
    live = {
        scaler: {
            "kind": scaler.kind,
            "metadata": {"name": "api", "namespace": "shop"},
            "spec": {"scaleTargetRef": target, "minReplicas": 2},
            "status": {"conditions": [{"type": "ScalingActive", "reason": "ScalingDisabled"}]},
        },
        Reference("apps/v1", "Deployment", "shop", "api"): {
            "kind": "Deployment",
            "metadata": {"name": "api"},
            "spec": {"replicas": replicas},
        },
    }
    api = cast(ApiClient, type("Api", (), {"get": staticmethod(live.get)}))
    assert wait.read_health(api, [scaler])[scaler].state == state
