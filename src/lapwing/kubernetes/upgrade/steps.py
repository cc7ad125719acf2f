"""The steps of an upgrade in a cluster: what `driver` names, done through the API.

Every method may be called again after an interruption: it checks first what exists.

The old version is scaled to zero, not deleted, until the schema has changed: rolling back is
scaling up. The new one is a new object: with the old Rollout its ReplicaSets are deleted, because
Argo Rollouts scales the active one, which is the old one, as soon as the Rollout has replicas
again, and an old version must never meet a newer schema. So after an upgrade no slot is warm for a
rollback; the way back is the backup.

A HorizontalPodAutoscaler ignores a workload without replicas. Source: Kubernetes documentation,
"Horizontal Pod Autoscaling", implicit maintenance-mode deactivation.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from lapwing.errors import DeploymentFailed, LapwingError
from lapwing.kubernetes import health, volumes
from lapwing.kubernetes.apply import apply_object
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import (
    Object,
    Reference,
    annotation,
    image_of,
    label,
    pod_spec,
)
from lapwing.kubernetes.upgrade import objects
from lapwing.kubernetes.upgrade.backup import SCRIPTS, BackupCommands, Scripts
from lapwing.kubernetes.upgrade.plan import UpgradePlan, bare, part_of
from lapwing.kubernetes.upgrade.probe import probe
from lapwing.kubernetes.upgrade.record import UpgradeRecords
from lapwing.kubernetes.upgrade.states import Probe
from lapwing.kubernetes.wait import ResourceWaiter
from lapwing.plan.names import COMPONENT, NAME


class UpgradeSteps:
    """The steps for one service and its database.

    `commands` back up in place of a Job. `report` gets a line for each step.
    """

    def __init__(
        self,
        api: ApiClient,
        scope: Scope,
        plan: UpgradePlan,
        records: UpgradeRecords,
        commands: BackupCommands | None = None,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepare the steps of a plan."""
        self._api, self._scope, self._plan, self._records = api, scope, plan, records
        self._commands, self._report = commands, report
        self._waiter = ResourceWaiter(api, records.heartbeat, report)

    def remember(self) -> None:
        """Record what runs now, before the first step.

        Raises DeploymentFailed if a rollout is held: it serves something else than its object says.
        """
        found = []
        for workload in self._plan.workloads:
            live = self._get(workload)
            if live is None:
                continue
            if health.judge(live).state == "held":
                option = f" -e {self._scope.environment}"
                raise DeploymentFailed(
                    f"The deployment of {part_of(workload)} is paused. Nothing was changed.",
                    hint=f"Run `lapwing promote{option}` or `lapwing abort{option}` first.",
                )
            thing = bare(live)
            thing["spec"]["replicas"] = health.wanted_replicas(live["spec"])
            found.append(thing)
        jobs = self._api.list("batch/v1", "CronJob", self._scope.namespace, self._scope.selector)
        found += [bare(j) for j in jobs if not j["spec"].get("suspend")]
        self._records.before = found

    # Before anything is changed

    def probe(self) -> Probe:
        """Start the new version once, without traffic, and see whether it is healthy or exits."""
        return probe(self._api, self._plan, self._waiter, self._report)

    # The old version

    def stop_old(self) -> None:
        """Suspend scheduled jobs, end their runs, scale what uses the database to zero."""
        stopped = ", ".join((*self._plan.parts, *self._plan.scheduled))
        self._report(f"stopping {stopped}: clients get 503 from now on")
        self._suspend_jobs(True)
        self._end_runs()
        for thing in self._stopped():
            self._waiter.scale(Reference.of(thing), 0)
        self._wait_for_no_pods()

    def await_no_connection(self) -> None:
        """Wait until no pod is left, and no connection to a database that can be queried."""
        self._wait_for_no_pods()
        database, scripts = self._database()
        if database is not None and scripts is not None:
            self._report("checking for connections to the database")
            self._run(objects.database_task(self._plan, database, "quiet", scripts, self._id))

    def start_old(self) -> None:
        """Start the previous version as it was."""
        for thing in self._stopped():
            self._report(f"starting {part_of(thing)} as it was")
            count = int(thing["spec"]["replicas"])
            live = self._get(thing)
            if live is not None and image_of(live) == image_of(thing):
                self._waiter.scale(Reference.of(thing), count)
            else:
                self._replace(thing, count)
        self._waiter.ready([Reference.of(t) for t in self._stopped()])
        self._clean_up()

    # The database

    def back_up(self) -> str:
        """Make a backup and check it; returns its name."""
        if self._commands is not None:
            self._report("backing up the database with the --backup command")
            return self._commands.back_up(self._records.heartbeat)
        database, scripts = self._database()
        if database is None or scripts is None:
            raise LapwingError("No backup of the database is configured.")
        name = f"{datetime.now(UTC):%Y%m%d}-{self._id}{scripts.ending}"
        self._report(f"backing up the database to {objects.claim_name(database)}")
        volumes.create_claim(self._api, objects.claim(self._plan, database), self._report)
        job = objects.database_task(self._plan, database, "backup", scripts, self._id, name)
        # A Job of an earlier attempt of this upgrade has the name that it was created with.
        [container] = pod_spec(self._run(job))["containers"]
        return str(next(e["value"] for e in container["env"] if e["name"] == "BACKUP"))

    def restore(self, backup: str) -> None:
        """Restore the backup over whatever the migration left."""
        self._wait_for_no_pods()
        self._report(f"restoring {backup}")
        if self._commands is not None:
            self._commands.restore(backup, self._records.heartbeat)
            return
        database, scripts = self._database()
        if database is None or scripts is None or not backup.endswith(scripts.ending):
            raise LapwingError(
                f"{backup} was made by a --backup command. Pass --backup and --restore again."
            )
        job = objects.database_task(self._plan, database, "restore", scripts, self._id, backup)
        self._run(job, again=True)

    def migrate(self) -> None:
        """Run the migration of the new version once."""
        self._report(f"migrating with {self._plan.image}")
        self._run(objects.migration(self._plan, self._id))

    # The new version

    def start_new(self) -> None:
        """Start the new version and wait until it is ready."""
        for workload in self._plan.workloads:
            self._report(f"starting {part_of(workload)} {image_of(workload)}")
            live = self._get(workload)
            if live is None or self._is_before(live):
                self._replace(workload, self._replicas(workload))
        self._waiter.ready([Reference.of(w) for w in self._plan.workloads])

    def switch(self) -> None:
        """Wait until the new pods are ready behind the unchanged Service; resume scheduled jobs."""
        self._waiter.ready([Reference.of(w) for w in self._plan.workloads])
        self._clean_up()

    def stop_new(self) -> None:
        """Stop everything of the new version, the migration included."""
        self._report("stopping the new version")
        migrations = f"{NAME}={part_of(self._plan.migration)}"
        for job in self._api.list("batch/v1", "Job", self._plan.namespace, migrations):
            if annotation(job, objects.UPGRADE) == self._id:
                self._waiter.delete(Reference.of(job))
        for workload in self._plan.workloads:
            live = self._get(workload)
            if live is not None and self._is_before(live):
                self._waiter.scale(Reference.of(live), 0)
            elif live is not None:
                self._waiter.delete(Reference.of(live))
        self._wait_for_no_pods()

    # How

    @property
    def _id(self) -> str:
        return self._records.id

    def _get(self, thing: Object) -> Object | None:
        return self._api.get(Reference.of(thing))

    def _stopped(self) -> list[dict[str, Any]]:
        return [t for t in self._records.before if t["kind"] != "CronJob"]

    def _before(self, workload: Object) -> Object | None:
        """Return a workload as it ran before; None if it did not."""
        reference = Reference.of(workload)
        return next((t for t in self._stopped() if Reference.of(t) == reference), None)

    def _is_before(self, live: Object) -> bool:
        """Return whether a workload is the version that ran before."""
        before = self._before(live)
        return before is not None and image_of(before) == image_of(live)

    def _replicas(self, workload: Object) -> int:
        if "replicas" in workload["spec"]:
            return int(workload["spec"]["replicas"])
        before = self._before(workload)
        running = int(before["spec"]["replicas"]) if before is not None else 0
        return max(running, self._plan.least[part_of(workload)])

    def _replace(self, thing: Object, count: int) -> None:
        """Create a workload anew with this many replicas, after the old one is gone.

        Where an autoscaler sets the replicas they are not applied, so that they are never our
        field to take away.
        """
        self._waiter.delete(Reference.of(thing))
        fixed = {part_of(w) for w in self._plan.workloads if "replicas" in w["spec"]}
        spec = {k: v for k, v in thing["spec"].items() if k != "replicas"}
        if part_of(thing) in fixed:
            spec["replicas"] = count
        apply_object(self._api, self._scope.with_labels({**thing, "spec": spec}), None)
        self._waiter.scale(Reference.of(thing), count)

    def _suspend_jobs(self, suspend: bool) -> None:
        for job in self._records.before:
            if job["kind"] == "CronJob" and self._get(job) is not None:
                self._api.patch(Reference.of(job), {"spec": {"suspend": suspend}})

    def _end_runs(self) -> None:
        """Delete the runs in progress of scheduled jobs that use the database."""
        for part in self._plan.scheduled:
            for job in self._api.list("batch/v1", "Job", self._plan.namespace, f"{NAME}={part}"):
                if (job.get("status") or {}).get("active"):
                    self._waiter.delete(Reference.of(job))

    def _wait_for_no_pods(self) -> None:
        self._waiter.no_pods(self._plan.namespace, self._plan.pods)

    def _database(self) -> tuple[Object | None, Scripts | None]:
        """Return the database as it runs, and the scripts that back it up."""
        known = self._plan.database
        if known is None:
            return None, None
        return self._get(known), SCRIPTS.get(label(known, COMPONENT))

    def _run(self, job: Object, *, again: bool = False) -> Object:
        """Run a Job of this upgrade, or wait for the one that runs; returns it once it is complete.

        One that failed is run again if `again`. Raises DeploymentFailed with its last lines.
        """
        live = self._get(job)
        if live is not None and (
            annotation(live, objects.UPGRADE) != annotation(job, objects.UPGRADE)
            or (again and health.judge(live).state == "failed")
        ):
            self._waiter.delete(Reference.of(job))
            live = None
        if live is None:
            for policy in self._policies():
                apply_object(self._api, policy, None)
            self._api.create(job)
        return self._waiter.complete(job)

    def _policies(self) -> list[dict[str, Any]]:
        """Return the network policies that let Jobs of the upgrade reach the database."""
        database, scripts = self._database()
        if database is None or scripts is None:
            return []
        return objects.policies(self._plan, database, scripts)

    def _clean_up(self) -> None:
        """Resume scheduled jobs and delete the upgrade's own objects; the backup stays."""
        self._suspend_jobs(False)
        database, scripts = self._database()
        if database is None or scripts is None:
            return
        for task in ("quiet", "backup", "restore"):
            made = objects.database_task(self._plan, database, task, scripts, self._id)
            self._api.delete(Reference.of(made))
        for policy in self._policies():
            self._api.delete(Reference.of(policy))
