"""`lapwing restore` on a cluster: the data of a database is replaced by that of a backup.

    stopping   suspend the scheduled jobs and end their runs, scale the services to 0, and back up
               all databases, which nothing writes to any more
    loading    a Job loads the backup into the running database. A service with an offline
               migration starts once, without traffic, to check that it supports the schema
    starting   scale the services to their replicas from before, and resume the scheduled jobs

Each step is recorded in the cluster before it begins, and can be repeated, so the same command
completes an interrupted restore from any machine. If `stopping` fails or is cancelled, everything
is started again. While `loading`, the database may have a part of the data: the services stay
stopped until a backup is loaded completely, which may be the one made in `stopping`.

A HorizontalPodAutoscaler ignores a workload with 0 replicas (see upgrade/steps.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from lapwing.errors import BackupError, LapwingError, StateError
from lapwing.kubernetes import health
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.backups import CHECK, PART, BackupJobs
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference, label
from lapwing.kubernetes.pods import EDGE, ROLLOUT
from lapwing.kubernetes.record import LEASE_S, Records
from lapwing.kubernetes.wait import MAX_WAIT_S, ResourceWaiter
from lapwing.plan.names import COMPONENT, INSTANCE, NAME, PROBE, TASK

RECORD = "lapwing-restore"


class Restoring(msgspec.Struct, frozen=True, kw_only=True):
    """A restore in progress. `saved` is the backup of the data before it."""

    name: str
    backup: str
    sha256: str
    step: Literal["stopping", "loading", "starting"] = "stopping"
    saved: str | None = None

    def is_same(self, other: Restoring) -> bool:
        """Return whether the same part is restored from the same backup."""
        return (self.name, self.backup) == (other.name, other.backup)

    def command(self, environment: str) -> str:
        """The command that completes it."""
        return f"lapwing restore {self.name} {self.backup} -e {environment}"


class RestoreLockedError(LapwingError):
    """Another command is running a restore."""

    code = "restore-locked"


def reference(scope: Scope) -> Reference:
    """Return the reference of the record of a restore."""
    return Reference("v1", "ConfigMap", scope.namespace, RECORD)


def recorded(api: ApiClient, scope: Scope) -> Restoring | None:
    """Return the restore that is in progress or was interrupted."""
    found = api.get(reference(scope))
    text = found["data"].get("record") if found else None
    return msgspec.json.decode(text, type=Restoring) if text else None


def check_none(api: ApiClient, scope: Scope) -> None:
    """Check that no restore is in progress or was interrupted. Raises StateError."""
    found = recorded(api, scope)
    if found is not None:
        raise StateError(
            f"A restore of {found.name} is in progress or was interrupted. Nothing was changed.",
            hint=f"Wait until it has ended, or run `{found.command(scope.environment)}` to "
            "complete it.",
        )


def records(
    api: ApiClient, scope: Scope, holder: str, lease: float = LEASE_S
) -> Records[Restoring]:
    """Prepare the record of a restore; `holder` names this command to others."""

    def locked(other: str) -> RestoreLockedError:
        where = f" ({other})" if other else ""
        return RestoreLockedError(
            f"Another `lapwing` command is restoring a backup{where}.",
            hint=f"`lapwing status -e {scope.environment}` shows when it has ended. If that "
            f"command was killed, run this one again after {lease:.0f} s.",
        )

    return Records(api, scope, RECORD, Restoring, holder=holder, lease=lease, locked=locked)


class Restore:
    """The steps of a restore.

    `back_up` makes a backup and returns its name. `outdated` returns a release that reports unknown
    migrations in the restored data, if any.
    """

    def __init__(
        self,
        jobs: BackupJobs,
        records: Records[Restoring],
        back_up: Callable[[], str],
        outdated: Callable[[ResourceWaiter], str | None],
        report: Callable[[str], None],
    ) -> None:
        """Prepare a restore with an acquired record."""
        self._jobs, self._records, self._back_up, self._report = jobs, records, back_up, report
        self._outdated = outdated
        self._api, self._scope = jobs.api, jobs.scope
        self._waiter = ResourceWaiter(jobs.api, records.heartbeat, report)

    def run(self, wanted: Restoring) -> Restoring:
        """Restore a part, or complete an interrupted restore; return it with `saved`.

        Raises LapwingError, whose message states whether anything was changed.
        """
        found = self._records.load()
        if found is None:
            self._records.before = self._remember()
        elif found.step == "loading":
            wanted = msgspec.structs.replace(wanted, step="loading", saved=found.saved)
        elif found.step == "starting" and found.is_same(wanted):
            wanted = found
        if wanted.step == "stopping":
            self._records.save(wanted)
            saved = self._stop_or_start_again()
            wanted = msgspec.structs.replace(wanted, step="loading", saved=saved)
        if wanted.step == "loading":
            self._records.save(wanted)
            self._load(wanted)
            if wanted.backup != wanted.saved:
                self._check_schema(wanted)
            wanted = msgspec.structs.replace(wanted, step="starting")
        self._records.save(wanted)
        started = self._start()
        self._records.save(None)
        self._waiter.ready(started)
        return wanted

    def _remember(self) -> list[dict[str, Any]]:
        """Return what is stopped: the services with their replicas, and the scheduled jobs."""
        found = []
        for version, kind in (ROLLOUT, ("apps/v1", "Deployment"), ("batch/v1", "CronJob")):
            for live in self._api.list(
                version, kind, self._scope.namespace, self._scope.selector, missing_kind_ok=True
            ):
                if label(live, COMPONENT) == EDGE or live["spec"].get("suspend"):
                    continue
                kept: dict[str, Any] = {k: live["metadata"][k] for k in ("name", "namespace")}
                kept["labels"] = {NAME: label(live, NAME)}
                spec = {"replicas": health.wanted_replicas(live["spec"])}
                found.append({"apiVersion": version, "kind": kind, "metadata": kept, "spec": spec})
        return found

    def _stop_or_start_again(self) -> str:
        """Stop what uses the databases and back them up; return the backup."""
        try:
            self._stop()
            self._waiter.until(self._backup_in_progress, MAX_WAIT_S)
            self._report("backing up the present data")
            return self._back_up()
        except RestoreLockedError:
            raise
        except (LapwingError, KeyboardInterrupt) as error:
            self._report("starting the services again")
            self._start()
            self._records.save(None)
            if isinstance(error, LapwingError):
                raise BackupError(
                    f"Nothing was restored, and the services were started again: {error.message}",
                    hint=error.hint,
                    detail=error.detail,
                ) from error
            raise

    def _stop(self) -> None:
        before = self._records.before
        services = [t for t in before if t["kind"] != "CronJob"]
        self._report(f"stopping {', '.join(label(t, NAME) for t in services)}")
        for thing in before:
            if thing["kind"] == "CronJob" and self._api.get(Reference.of(thing)) is not None:
                self._api.patch(Reference.of(thing), {"spec": {"suspend": True}})
        for job in self._runs():
            is_run = bool(job["metadata"].get("ownerReferences"))
            if is_run and label(job, COMPONENT) not in (PART, CHECK):
                self._waiter.delete(Reference.of(job))
        for thing in services:
            self._waiter.scale(Reference.of(thing), 0)
        names = ",".join(label(t, NAME) for t in before if label(t, NAME) != PART)
        selector = f"{NAME} in ({names}),{INSTANCE}={self._scope.stack}"
        if names:
            self._waiter.no_pods(self._scope.namespace, selector)

    def _runs(self) -> list[Object]:
        """List the Jobs in progress."""
        found = self._api.list("batch/v1", "Job", self._scope.namespace, self._scope.selector)
        return [job for job in found if (job.get("status") or {}).get("active")]

    def _backup_in_progress(self) -> str | None:
        is_running = any(label(job, COMPONENT) == PART for job in self._runs())
        return "another backup is in progress" if is_running else None

    def _load(self, restoring: Restoring) -> None:
        self._report(f"loading {restoring.name} from backup {restoring.backup}")
        try:
            self._delete_probes()
            seen = self._jobs.load(restoring.backup, restoring.name, restoring.sha256).strip()
        except RestoreLockedError:
            raise
        except LapwingError as error:
            what = f"{restoring.name} was not restored completely"
            raise self._stopped_error(restoring, what, error) from error
        self._report(f"loaded {seen.splitlines()[-1] if seen else restoring.name}")

    def _delete_probes(self) -> None:
        """Delete pods that a killed command left: they may be connected to the database."""
        selector = f"{self._scope.selector},{TASK}={PROBE}"
        for pod in self._api.list("v1", "Pod", self._scope.namespace, selector):
            self._waiter.delete(Reference.of(pod))

    def _check_schema(self, restoring: Restoring) -> None:
        """Check that no service is older than the schema of the data. Raises BackupError."""
        try:
            release = self._outdated(self._waiter)
        except RestoreLockedError:
            raise
        except LapwingError as error:
            what = f"{restoring.name} was loaded, but its schema was not checked"
            raise self._stopped_error(restoring, what, error) from error
        if release is not None:
            before = msgspec.structs.replace(restoring, backup=str(restoring.saved))
            raise BackupError(
                f"{release} reports unknown migrations in the restored {restoring.name}: an old "
                "version must not run with a newer schema. The services are stopped.",
                hint=f"Run `{before.command(self._scope.environment)}` to return to the data from "
                "before the restore. To use this backup, then deploy the version that made it "
                f"(`lapwing deploy -e {self._scope.environment} --image SERVICE=IMAGE`), and "
                "restore it again.",
            )

    def _stopped_error(self, restoring: Restoring, what: str, error: LapwingError) -> BackupError:
        environment = self._scope.environment
        before = msgspec.structs.replace(restoring, backup=str(restoring.saved))
        return BackupError(
            f"{what}, and the services are stopped: {error.message}",
            hint=f"Run `{restoring.command(environment)}` to repeat it, or "
            f"`{before.command(environment)}` to return to the data from before the restore.",
            detail=error.detail,
        )

    def _start(self) -> list[Reference]:
        """Start what was stopped; return the services."""
        services = []
        for thing in self._records.before:
            found = Reference.of(thing)
            if self._api.get(found) is None:
                continue
            if thing["kind"] == "CronJob":
                self._api.patch(found, {"spec": {"suspend": False}})
            else:
                self._waiter.scale(found, int(thing["spec"]["replicas"]))
                services.append(found)
        return services
