"""Jobs of backups where another command has the same Job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from lapwing.errors import BackupError, ClusterError, LapwingError
from lapwing.kubernetes import wait
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.backups import BackupJobs
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Reference
from lapwing.plan.names import dump_container
from lapwing.system.retry import RetryPolicy

NAME = "shop-backup-load"
JOB_NAME = f"batch.kubernetes.io/job-name={NAME}"
DUMP = {
    "name": dump_container("store"),
    "env": [{"name": "KIND", "value": "redis"}, {"name": "HOST", "value": "shop-store"}],
}
POD_SPEC = {"initContainers": [DUMP], "containers": [{"name": "store", "env": []}]}
CRON_JOB = {
    "kind": "CronJob",
    "metadata": {"name": "shop-backup", "uid": "cron"},
    "spec": {"jobTemplate": {"metadata": {"labels": {}}, "spec": {"template": {"spec": POD_SPEC}}}},
}


class Api:
    """A cluster with the CronJob. `at_poll` is called whenever a Job or pods are read."""

    def __init__(self) -> None:
        self.job: dict[str, Any] | None = None
        self.pods: list[dict[str, Any]] = []
        self.done: list[str] = []
        self.count = 0
        self.at_poll: Callable[[], None] = lambda: None

    def get(self, reference: Reference) -> dict[str, Any] | None:
        if reference.kind == "CronJob":
            return CRON_JOB
        if reference.kind != "Job":
            return None
        self.at_poll()
        return self.job

    def list(self, _: str, kind: str, _namespace: str, selector: str = "") -> list[dict[str, Any]]:
        if kind != "Pod" or selector != JOB_NAME:
            return []
        self.at_poll()
        return list(self.pods)

    def create(self, job: dict[str, Any]) -> dict[str, Any] | None:
        if self.job is not None:
            return None
        self.count += 1
        uid = f"uid-{self.count}"
        self.done.append(f"created {uid}")
        self.job = {**job, "metadata": {**job["metadata"], "uid": uid}, "status": {"active": 1}}
        owner = {"kind": "Job", "name": NAME, "uid": uid}
        self.pods.append(pod(f"pod-{self.count}", "Running", owner))
        return self.job

    def complete(self) -> None:
        assert self.job is not None
        self.job["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}

    def delete(self, reference: Reference, *, uid: str | None = None) -> bool:
        if self.job is None:
            return False
        if uid not in (None, self.job["metadata"]["uid"]):
            error = ClusterError("the UID in the precondition does not match")
            error.reason = "Conflict"
            raise error
        self.done.append(f"deleted {self.job['metadata']['uid']}")
        self.job = None
        return True

    def log(self, _: str, name: str, *_more: str, lines: int) -> str:
        return f"{name}\n"


def pod(name: str, phase: str, owner: dict[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "labels": {}, "ownerReferences": [owner]}
    return {"metadata": metadata, "spec": {}, "status": {"phase": phase}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wait, "POLL", RetryPolicy(max_delay=0.0))


def load(api: Api, heartbeat: Callable[[], None] = lambda: None) -> str:
    scope = Scope("shop", "production", "shop-production")
    jobs = BackupJobs(cast(ApiClient, api), scope, lambda _: None, heartbeat)
    return jobs.load("20260101T000000Z", "store", "0")


def test_a_load_begins_when_the_pod_of_a_deleted_job_has_ended() -> None:
    """After Ctrl-C the pod of the Job runs until its grace period is over."""
    api = Api()
    api.pods = [pod("pod-0", "Running", {"kind": "Job", "name": NAME, "uid": "uid-0"})]
    polls = 0

    def end() -> None:
        nonlocal polls
        polls += 1
        if polls == 5:
            assert api.job is None
            api.pods[0]["status"]["phase"] = "Succeeded"
        if api.job is not None:
            api.complete()

    api.at_poll = end
    assert load(api) == "pod-1\n"
    assert api.done == ["created uid-1", "deleted uid-1"]


def test_a_job_that_another_command_has_started_is_left_to_it() -> None:
    api = Api()
    api.create = lambda _: None  # type: ignore[method-assign]
    with pytest.raises(BackupError, match=f"Another command has started the Job {NAME}") as caught:
        load(api)
    assert caught.value.hint is not None
    assert "`lapwing status -e production`" in caught.value.hint
    assert api.done == []


def test_a_command_without_its_lease_does_not_delete_the_job_of_another() -> None:
    api = Api()

    def take_over() -> None:
        if api.job is not None:
            api.job["metadata"]["uid"] = "of another command"
            raise LapwingError("Another command is restoring a backup.")

    with pytest.raises(LapwingError, match="Another command is restoring"):
        load(api, take_over)
    assert api.job is not None
    assert api.done == ["created uid-1"]
