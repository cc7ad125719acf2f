"""An offline upgrade on a cluster: what `kubernetes/upgrade/drive.py` names, done through the API.

Every method may be called again after an interruption: it looks first at what is there.

The old version is scaled to zero, not removed, until the schema has changed: going back is scaling
up. The new one is a new object: with the old Rollout its ReplicaSets go, because Argo Rollouts
scales the active one, which is the old one, as soon as the Rollout has replicas again, and an old
version must never meet a newer schema. So after an upgrade no slot is warm that could be gone back
to; the way back is the backup.

A HorizontalPodAutoscaler leaves a workload alone that has no replicas. Source: Kubernetes
documents, "Horizontal Pod Autoscaling", implicit maintenance-mode deactivation.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from lapwing.errors import DeploymentFailed, LapwingError
from lapwing.kubernetes import apply, health, problems
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference
from lapwing.kubernetes.upgrade import objects
from lapwing.kubernetes.upgrade.commands import Commands
from lapwing.kubernetes.upgrade.dump import SCRIPTS, Scripts
from lapwing.kubernetes.upgrade.plan import Plan, bare, image_of, part_of
from lapwing.kubernetes.upgrade.probe import Probe
from lapwing.kubernetes.upgrade.record import Records
from lapwing.kubernetes.wait import ResourceWaiter
from lapwing.plan.names import COMPONENT, NAME

LINES = 100
"""Lines of the log of a probe that are read."""
CRON = ("batch/v1", "CronJob")
JOB = ("batch/v1", "Job")


class UpgradeSteps:
    """What can be done to a service and its database on a cluster. `commands` back up in the place
    of a Job. `tell` gets a line for each step."""

    def __init__(
        self,
        api: ApiClient,
        scope: Scope,
        plan: Plan,
        records: Records,
        commands: Commands | None = None,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._api, self._scope, self._plan, self._records = api, scope, plan, records
        self._commands, self._tell = commands, tell
        self._do = ResourceWaiter(api, records.live_on, tell)

    def remember(self) -> None:
        """Note what runs now, before the first act. Raises DeploymentFailed if a rollout is held:
        what serves then is not what the object says."""
        found = []
        for workload in self._plan.workloads:
            live = self._api.get(Reference.of(workload))
            if live is None:
                continue
            if health.judge(live).state == "held":
                raise DeploymentFailed(
                    f"A deployment of {part_of(workload)} is held.",
                    hint="`lapwing promote` or `lapwing abort` it first. Nothing was touched.",
                )
            thing = bare(live)
            thing["spec"]["replicas"] = health.wanted_replicas(live["spec"])
            found.append(thing)
        jobs = self._api.list(*CRON, self._scope.namespace, self._scope.selector)
        found += [bare(j) for j in jobs if not j["spec"].get("suspend")]
        self._records.before = found

    # Before anything is touched

    def probe(self) -> Probe:
        """Start the new version once, without traffic, and see whether it is healthy or ends."""
        pod = objects.probe(self._plan)
        self._tell(f"starting {self._plan.image} without traffic, to see what it needs")
        self._do.delete(Reference.of(pod))
        self._api.create(pod)
        found: list[Probe] = []

        def look() -> str | None:
            found[:] = _probed(self._api.get(Reference.of(pod)), lambda: self._log(pod))
            return None if found else f"{self._plan.image} starts"

        try:
            self._do.until(look, int(self._plan.own["spec"]["progressDeadlineSeconds"]))
        except DeploymentFailed:
            return Probe(False, None, self._log(pod) or "It was not healthy in time.")
        finally:
            self._do.delete(Reference.of(pod))
        return found[0]

    def _log(self, pod: Object) -> str:
        name = str(pod["metadata"]["name"])
        return self._api.log(self._plan.namespace, name, "main", lines=LINES)

    # The old version

    def stop_old(self) -> None:
        """Suspend scheduled jobs, scale everything that uses the database to zero."""
        self._tell(f"stopping {', '.join(self._plan.parts)}: clients get 503 from now on")
        for thing in self._scheduled():
            self._suspend(Reference.of(thing), True)
        for thing in self._stopped():
            self._do.scale(Reference.of(thing), 0)
        self._no_pods()

    def await_no_connection(self) -> None:
        """See that no pod is left, and no connection to a database that can be asked."""
        self._no_pods()
        database, scripts = self._database()
        if database is not None and scripts is not None:
            self._tell("looking for connections to the database")
            self._run(objects.database_task(self._plan, database, "quiet", scripts, self._id))

    def start_old(self) -> None:
        """The version before runs again, as it was."""
        for thing in self._stopped():
            self._tell(f"starting {part_of(thing)} as it was")
            count = int(thing["spec"]["replicas"])
            live = self._api.get(Reference.of(thing))
            if live is not None and image_of(live) == image_of(thing):
                self._do.scale(Reference.of(thing), count)
            else:
                self._replace(thing, count)
        self._do.ready([Reference.of(t) for t in self._stopped()])
        self._go_on()

    # The database

    def back_up(self) -> str:
        """Make a backup and check it; returns its name."""
        if self._commands is not None:
            self._tell("backing the database up by your command")
            return self._commands.back_up(self._records.live_on)
        database, scripts = self._database()
        if database is None or scripts is None:
            raise LapwingError("There is no way to make a backup.")
        name = f"{datetime.now(UTC):%Y%m%d}-{self._id}{scripts.ending}"
        self._tell(f"backing the database up into {objects.claim_name(database)}")
        self._api.create(objects.claim(self._plan, database))
        job = objects.database_task(self._plan, database, "backup", scripts, self._id, name)
        return _told(self._run(job), "BACKUP")

    def restore(self, backup: str) -> None:
        """Put the backup back, over whatever the migration left."""
        self._no_pods()
        self._tell(f"restoring {backup}")
        if self._commands is not None:
            self._commands.restore(backup, self._records.live_on)
            return
        database, scripts = self._database()
        if database is None or scripts is None or not backup.endswith(scripts.ending):
            raise LapwingError(
                f"{backup} was made by a command of yours. Say --backup and --restore again"
            )
        job = objects.database_task(self._plan, database, "restore", scripts, self._id, backup)
        self._run(job, again=True)

    def migrate(self) -> None:
        """Run the migration of the new version once, and read how it ended."""
        self._tell(f"migrating with {self._plan.image}")
        self._run(objects.migration(self._plan, self._id))

    # The new version

    def start_new(self) -> None:
        """The new version runs and is ready; the old one cannot come back by itself."""
        for workload in self._plan.workloads:
            self._tell(f"starting {part_of(workload)} {image_of(workload)}")
            live = self._api.get(Reference.of(workload))
            if live is None or self._is_before(live):
                self._replace(workload, self._replicas(workload))
        self._do.ready([Reference.of(w) for w in self._plan.workloads])

    def switch(self) -> None:
        """Clients reach the new version: its pods are ready behind the Service, which has the name
        and the port that it had. Scheduled jobs go on."""
        self._do.ready([Reference.of(w) for w in self._plan.workloads])
        self._go_on()

    def stop_new(self) -> None:
        """Nothing of the new version runs, the migration included."""
        self._tell("stopping the new version")
        migrations = f"{NAME}={part_of(self._plan.migration)}"
        for job in self._api.list(*JOB, self._plan.namespace, migrations):
            if _upgrade(job) == self._id:
                self._do.delete(Reference.of(job))
        for workload in self._plan.workloads:
            live = self._api.get(Reference.of(workload))
            if live is not None and self._is_before(live):
                self._do.scale(Reference.of(live), 0)
            elif live is not None:
                self._do.delete(Reference.of(live))
        self._no_pods()

    # How

    @property
    def _id(self) -> str:
        return self._records.upgrade

    def _stopped(self) -> list[dict[str, Any]]:
        return [t for t in self._records.before if t["kind"] != "CronJob"]

    def _scheduled(self) -> list[dict[str, Any]]:
        return [t for t in self._records.before if t["kind"] == "CronJob"]

    def _is_before(self, live: Object) -> bool:
        """Whether a workload is the one that ran before. One that was not there before is not."""
        before = [t for t in self._stopped() if Reference.of(t) == Reference.of(live)]
        return bool(before) and image_of(before[0]) == image_of(live)

    def _replicas(self, workload: Object) -> int:
        if "replicas" in workload["spec"]:
            return int(workload["spec"]["replicas"])
        before = [
            int(t["spec"]["replicas"])
            for t in self._stopped()
            if Reference.of(t) == Reference.of(workload)
        ]
        return max([*before, self._plan.least[part_of(workload)]])

    def _replace(self, thing: Object, count: int) -> None:
        """The object anew, with this many replicas: what was of the old one is gone before. Where
        an autoscaler sets them they are not applied, so that they are never ours to take away."""
        self._do.delete(Reference.of(thing))
        marked = self._scope.with_labels(thing)
        named = {part_of(w) for w in self._plan.workloads if "replicas" in w["spec"]}
        spec = {k: v for k, v in marked["spec"].items() if k != "replicas"}
        if part_of(thing) in named:
            spec["replicas"] = count
        apply.apply_object(self._api, {**marked, "spec": spec}, None)
        self._do.scale(Reference.of(thing), count)

    def _suspend(self, reference: Reference, suspend: bool) -> None:
        if self._api.get(reference) is not None:
            self._api.patch(reference, {"spec": {"suspend": suspend}})

    def _no_pods(self) -> None:
        self._do.no_pods(self._plan.namespace, self._plan.pods)

    def _database(self) -> tuple[Object | None, Scripts | None]:
        """The database as it runs, and what backs it up."""
        known = self._plan.database
        if known is None:
            return None, None
        kind = str((known["metadata"].get("labels") or {}).get(COMPONENT))
        return self._api.get(Reference.of(known)), SCRIPTS.get(kind)

    def _run(self, job: Object, *, again: bool = False) -> Object:
        """Run a Job of this upgrade, or go on with the one that runs; returns it when it is done.
        One that failed is run anew if `again`. Raises DeploymentFailed with its last lines."""
        live = self._api.get(Reference.of(job))
        if live is not None and (
            _upgrade(live) != _upgrade(job) or (again and health.judge(live).state == "failed")
        ):
            self._do.delete(Reference.of(job))
            live = None
        if live is None:
            self._let_in()
            self._api.create(job)
        return self._do.complete(job)

    def _let_in(self) -> None:
        database, scripts = self._database()
        if database is not None and scripts is not None:
            for policy in objects.policies(self._plan, database, scripts):
                apply.apply_object(self._api, policy, None)

    def _go_on(self) -> None:
        """Scheduled jobs go on, and what was made for the time of the upgrade goes; the backup
        stays."""
        for thing in self._scheduled():
            self._suspend(Reference.of(thing), False)
        database, scripts = self._database()
        if database is None or scripts is None:
            return
        for task in ("quiet", "backup", "restore"):
            made = objects.database_task(self._plan, database, task, scripts, self._id)
            self._api.delete(Reference.of(made))
        for policy in objects.policies(self._plan, database, scripts):
            self._api.delete(Reference.of(policy))


def _probed(pod: Object | None, log: Callable[[], str]) -> list[Probe]:
    """What a pod has shown; nothing while it starts. Pure but for the log."""
    if pod is None:
        return [Probe(False, None, "Its pod was removed.")]
    status: Any = pod.get("status") or {}
    if any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions") or ()):
        return [Probe(True, None, "")]
    for each in status.get("containerStatuses") or ():
        ended = (each.get("state") or {}).get("terminated")
        if ended:
            return [Probe(False, int(ended.get("exitCode", 0)), log() or ended.get("message", ""))]
    final = [t for t in problems.of_pods([pod]) if t.final]
    return [Probe(False, None, final[0].text)] if final else []


def _told(job: Object, variable: str) -> str:
    """What a Job was told by a variable."""
    [container] = job["spec"]["template"]["spec"]["containers"]
    return str(next(e["value"] for e in container["env"] if e["name"] == variable))


def _upgrade(job: Object) -> str:
    return str((job["metadata"].get("annotations") or {}).get(objects.UPGRADE, ""))
