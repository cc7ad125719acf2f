"""Jobs that back up the databases of an environment now, list backups, and restore them.

Each is built from the CronJob in the cluster (see render/kubernetes/backup.py), so it has what was
deployed: images, credentials, policies, user and volumes. A Job is deleted when its output is read;
if the command is killed, the cluster deletes it an hour after it has ended.

    backup      the pod of the CronJob, as a manual run
    list        prints the manifests
    rehearse    downloads an archive and checks its SHA-256, then starts a server from the image of
                the database on an empty folder, reachable only in the pod, and loads the dump
    load        downloads and checks an archive, then loads it into the running database
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from lapwing.errors import BackupError, ClusterError
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference, is_owned_by
from lapwing.kubernetes.wait import ResourceWaiter
from lapwing.plan.names import COMPONENT, dump_container
from lapwing.system.package_data import read

PART = "backup"
CHECK = "backup-check"
"""The component of Jobs that make no backup. Their pods have that of the CronJob: policies allow
its connections."""
MAX_LOG_LINES = 10_000


def script(name: str) -> str:
    """Return a shell script; `KIND` tests a restore, `load-KIND` restores a database."""
    return read("kubernetes", f"backup_scripts/{name}.sh")


class BackupJobs:
    """Runs Jobs for the backups of one environment. Methods raise BackupError or ClusterError."""

    def __init__(
        self,
        api: ApiClient,
        scope: Scope,
        report: Callable[[str], None],
        heartbeat: Callable[[], None] = lambda: None,
    ) -> None:
        self.api, self.scope = api, scope
        self._waiter = ResourceWaiter(api, heartbeat, report)

    def back_up(self, **variables: str) -> str:
        """Make a backup, and return its manifest. Raises BackupError if one is in progress."""
        cron_job, spec = self._pod()
        for job in self.api.list("batch/v1", "Job", self.scope.namespace, f"{COMPONENT}={PART}"):
            if (job.get("status") or {}).get("active"):
                raise BackupError("Another backup of this environment is in progress.")
        [store] = spec["containers"]
        spec["containers"] = [changed_container(store, SCHEDULED="false", **variables)]
        return self._run(cron_job, spec)

    def list(self) -> str:
        """Return the manifests of the complete backups, one on each line."""
        cron_job, spec = self._pod()
        [store] = spec["containers"]
        del spec["initContainers"]
        spec["containers"] = [changed_container(store, script("list"))]
        return self._run(cron_job, spec, CHECK)

    def rehearse(self, backup: str, part: str, sha256: str) -> str:
        """Restore a part of a backup in a new pod; return what was found there."""
        cron_job, spec = self._restoring_pod("", backup, part, sha256)
        [server] = spec["containers"]
        server["env"] = [e for e in server["env"] if "valueFrom" not in e]
        return self._run(cron_job, spec, CHECK)

    def load(self, backup: str, part: str, sha256: str) -> str:
        """Replace the data of a database by a part of a backup; return what was loaded.

        A Job of an earlier attempt is deleted first.
        """
        cron_job, spec = self._restoring_pod("load-", backup, part, sha256)
        name, namespace = f"{cron_job['metadata']['name']}-load", self.scope.namespace
        self._waiter.delete(Reference("batch/v1", "Job", namespace, name))
        # The pod of a deleted Job runs until its grace period is over.
        self._waiter.no_pods(namespace, _pods_of(name))
        return self._run(cron_job, spec, CHECK, name=name)

    def kind(self, part: str) -> str:
        """Return the kind of a database. Raises BackupError if it is not in the cluster."""
        variables = {e["name"]: e.get("value") for e in self._dump(self._pod()[1], part)["env"]}
        return str(variables["KIND"])

    def _dump(self, spec: Mapping[str, Any], part: str) -> dict[str, Any]:
        """Return the container that dumps a database. Raises BackupError."""
        called = dump_container(part)
        found: dict[str, Any] | None = next(
            (c for c in spec["initContainers"] if c["name"] == called), None
        )
        if found is None:
            raise BackupError(f"{part} is not a database of {self.scope.environment} any more.")
        return found

    def _restoring_pod(
        self, prefix: str, backup: str, part: str, sha256: str
    ) -> tuple[Object, dict[str, Any]]:
        """Return the CronJob, and a pod that gets a dump and runs the script of its database."""
        cron_job, spec = self._pod()
        dump = self._dump(spec, part)
        variables = {e["name"]: e.get("value") for e in dump["env"]}
        [store] = spec["containers"]
        given = {"BACKUP": backup, "NAME": part, "SHA256": sha256}
        spec["initContainers"] = [
            changed_container(store, script("fetch"), **given) | {"name": "fetch"}
        ]
        command = script(f"{prefix}{variables['KIND']}")
        server = changed_container(dump, command) | {"name": "server"}
        where = Reference("apps/v1", "StatefulSet", self.scope.namespace, str(variables["HOST"]))
        if (database := self.api.get(where)) is not None:
            [served] = database["spec"]["template"]["spec"]["containers"]
            server["resources"] = served["resources"]
        spec["containers"] = [server]
        return cron_job, spec

    @property
    def place(self) -> str:
        """The address of the backups, for messages."""
        [store] = self._pod()[1]["containers"]
        variables = {e["name"]: e.get("value") for e in store["env"]}
        scheme = "s3" if variables.get("RCLONE_CONFIG_BUCKET_TYPE") == "s3" else "gs"
        return str(variables["TARGET"]).replace("bucket:", f"{scheme}://", 1)

    def _pod(self) -> tuple[Object, dict[str, Any]]:
        """Return the CronJob, and a copy of the specification of its pods."""
        scope = self.scope
        name = f"{scope.stack}-{PART}"
        found = self.api.get(Reference("batch/v1", "CronJob", scope.namespace, name))
        if found is None:
            raise BackupError(
                f"{scope.stack}/{scope.environment} has no backups in the cluster.",
                hint="Set `backup: {every: daily, to: s3://BUCKET}` of the environment, and run "
                f"`lapwing deploy -e {scope.environment}`.",
            )
        return found, copy.deepcopy(found["spec"]["jobTemplate"]["spec"]["template"]["spec"])

    def _run(
        self, cron_job: Object, spec: Mapping[str, Any], component: str = PART, *, name: str = ""
    ) -> str:
        """Run a Job to its end, and return the output of its container."""
        made = copy.deepcopy(cron_job["spec"]["jobTemplate"])
        metadata, namespace = cron_job["metadata"], self.scope.namespace
        made["spec"]["template"]["spec"] = spec
        owner = {"apiVersion": "batch/v1", "kind": "CronJob"}
        owner |= {"name": metadata["name"], "uid": metadata["uid"]}
        name = name or f"{metadata['name']}-{secrets.token_hex(5)}"
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {
                **made["metadata"],
                "labels": {**made["metadata"]["labels"], COMPONENT: component},
                "name": name,
                "namespace": namespace,
                "ownerReferences": [owner],
            },
            "spec": made["spec"],
        }
        created = self.api.create(job)
        if created is None:
            raise BackupError(
                f"Another command has started the Job {name}.",
                hint=f"`lapwing status -e {self.scope.environment}` shows when it has ended.",
            )
        uid = str(created["metadata"]["uid"])
        try:
            self._waiter.complete(job)
            pods = self.api.list("v1", "Pod", namespace, _pods_of(name))
            names = [p["metadata"]["name"] for p in pods if is_owned_by(p, {uid})]
            called = spec["containers"][0]["name"]
            return "".join(
                self.api.log(namespace, pod, called, lines=MAX_LOG_LINES) for pod in names
            )
        finally:
            self._delete(Reference.of(job), uid)

    def _delete(self, job: Reference, uid: str) -> None:
        """Delete a Job of this command, but not that of a command that has taken over."""
        try:
            self.api.delete(job, uid=uid)
        except ClusterError as error:
            if error.reason != "Conflict":
                raise


def _pods_of(job: str) -> str:
    """Return the selector of the pods of a Job."""
    return f"batch.kubernetes.io/job-name={job}"


def changed_container(
    container: Mapping[str, Any], command: str = "", **variables: str
) -> dict[str, Any]:
    """Return a container with other variables, and with another script if one is given."""
    kept = [e for e in container["env"] if e["name"] not in variables]
    env = [*kept, *({"name": name, "value": value} for name, value in variables.items())]
    changed = {"command": ["/bin/sh", "-c", command]} if command else {}
    return {**container, **changed, "env": env}
