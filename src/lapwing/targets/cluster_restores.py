"""`lapwing restore` on a cluster: the checks before it, and the restore (kubernetes/restores.py).

The backup is loaded into a server in a new pod first, while everything runs: it is complete, and
the present version of the database reads it. A restore is refused for a managed database, during a
deployment, and for an application of Argo CD that is not paused: it would start the services again.

Source: Argo CD documentation, "Skip Application Reconcile" (`argocd.argoproj.io/skip-reconcile`).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

from lapwing.agent.backup_manifest import Manifest, Part
from lapwing.errors import BackupError, DeploymentFailed, StateError, UsageError, check_name
from lapwing.kubernetes import local_state, restores
from lapwing.kubernetes.backups import BackupJobs
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import annotation
from lapwing.kubernetes.restores import Restore, Restoring
from lapwing.kubernetes.status import read_status
from lapwing.kubernetes.upgrade import guard
from lapwing.kubernetes.wait import ResourceWaiter
from lapwing.stack.cloud import is_managed
from lapwing.targets import guards
from lapwing.targets.argocd import ArgoCDTarget
from lapwing.targets.base import DeployResult, actor_name
from lapwing.targets.cluster_backups import ClusterBackups, read_manifests
from lapwing.targets.kubernetes import KubernetesTarget

SKIP = "argocd.argoproj.io/skip-reconcile"
KEEP_ALL = "1000000"
"""`keep` of the backup before a restore: it removes no other, such as the one to restore."""
MANAGED_HINTS = {
    "mongodb": "Restore it in Atlas: `atlas backups restores start pointInTime` restores a cluster "
    "to a point in time.",
    "mysql": "Restore it in Cloud SQL: `gcloud sql instances clone INSTANCE NEW --point-in-time "
    "TIME` creates an instance with the data of a point in time.",
    "redis": "Restore it in Memorystore: `gcloud redis instances import` loads an export.",
}
MANAGED_HINTS["postgres"] = MANAGED_HINTS["mysql"]
"""How to restore a managed database, by its kind."""


class ClusterRestores:
    """Restores databases of an environment on a cluster. Raises LapwingError."""

    def __init__(self, target: KubernetesTarget | ArgoCDTarget) -> None:
        self._target, self._cluster = target, target.cluster
        self._backups = ClusterBackups(target.cluster)

    def restore(self, name: str, backup: str | None) -> tuple[Restoring, DeployResult]:
        """Restore a database, by default from the newest backup, or complete a restore.

        Raises UsageError or StateError if nothing was changed, BackupError if a step failed.
        """
        cluster, reporter = self._cluster, self._cluster.reporter
        self._refuse_managed(name)
        with guards.exclusive(cluster.folder, cluster.ref), cluster.connect() as api:
            if isinstance(self._target, ArgoCDTarget):
                self._check_paused(api)
            found = restores.recorded(api, cluster.scope)
            self._check_idle(api, found, name)
            is_repeated = found is not None and found.name == name
            manifest = self._backups.find(
                backup or (found.backup if is_repeated and found else None)
            )
            part = _part(manifest, name)
            self._confirm(api, manifest, part)
            local_state.save_context(cluster.folder, api.access.context)
            with self._failures():
                self._check_backup(api, manifest, part)
                with reporter.working("restoring"):
                    restored = self._run(api, manifest, part)
            status = read_status(api, cluster.scope, "")
            result = DeployResult(
                stack=cluster.ref.stack,
                environment=cluster.ref.environment,
                target=self._target.name,
                kind="restore",
                outcome="succeeded",
                commit=status.commit if status else None,
                url=cluster.url(api) or None,
            )
        if isinstance(self._target, ArgoCDTarget):
            reporter.say(f"Let Argo CD apply the environment again: `{self._annotate('-')}`.")
        return restored, result

    def _run(self, api: ApiClient, manifest: Manifest, part: Part) -> Restoring:
        cluster = self._cluster
        actor = actor_name(cluster.settings, self._target.file.path.parent)
        records = restores.records(api, cluster.scope, f"{actor} on {socket.gethostname()}")
        records.acquire()
        jobs = BackupJobs(api, cluster.scope, cluster.reporter.progress, records.heartbeat)

        def back_up() -> str:
            made = read_manifests(jobs.back_up(KEEP=KEEP_ALL).splitlines())
            if not made:
                raise BackupError(
                    "The manifest of the backup of the present data cannot be read.",
                    hint="Run the command again.",
                )
            return made[-1].id

        def outdated(waiter: ResourceWaiter) -> str | None:
            return guard.outdated(api, cluster.scope, part.name, waiter, cluster.reporter.say)

        try:
            wanted = Restoring(name=part.name, backup=manifest.id, sha256=part.sha256)
            return Restore(jobs, records, back_up, outdated, cluster.reporter.say).run(wanted)
        except BaseException:
            records.release()
            raise

    def _check_backup(self, api: ApiClient, manifest: Manifest, part: Part) -> None:
        """Load the backup into a server in a new pod. Raises BackupError: nothing was changed."""
        jobs = BackupJobs(api, self._cluster.scope, self._cluster.reporter.progress)
        kind = jobs.kind(part.name)
        if kind != part.kind:
            raise BackupError(
                f"{part.name} is a {kind} now; the backup is of a {part.kind}.",
                hint=f"`lapwing backup list -e {self._cluster.ref.environment}` lists all backups.",
            )
        with self._cluster.reporter.working(f"checking {part.name} of backup {manifest.id}"):
            jobs.rehearse(manifest.id, part.name, part.sha256)

    def _refuse_managed(self, name: str) -> None:
        loaded = self._target.file.load(self._cluster.ref.environment)
        resource = loaded.stack.resources.get(name)
        if resource is not None and is_managed(resource, loaded.settings):
            in_cloud = loaded.settings.cloud is not None
            raise UsageError(
                f"{name} does not run in the cluster, so Lapwing does not restore it.",
                hint=MANAGED_HINTS[resource.kind] if in_cloud else "Restore it where it runs.",
            )

    def _check_paused(self, api: ApiClient) -> None:
        """Check that Argo CD does not apply the environment meanwhile. Raises StateError."""
        called = self._cluster.scope.namespace
        every = api.list("argoproj.io/v1alpha1", "Application", "", missing_kind_ok=True)
        found = [a for a in every if a["metadata"]["name"] == called]
        if not found or any(annotation(a, SKIP) != "true" for a in found):
            raise StateError(
                f"{self._cluster.ref} is applied by Argo CD, which would start the services again "
                "during the restore. Nothing was changed.",
                hint=f"Pause it with `{self._annotate('=true')}`, and run the command again.",
            )

    def _annotate(self, value: str) -> str:
        return (
            f"kubectl -n argocd annotate application {self._cluster.scope.namespace} {SKIP}{value}"
        )

    def _check_idle(self, api: ApiClient, found: Restoring | None, name: str) -> None:
        """Check that nothing else is in progress. Raises StateError or UpgradeError."""
        scope = self._cluster.scope
        guard.check_in_progress(api, scope, ())
        if found is not None and found.step == "loading" and found.name != name:
            raise StateError(
                f"A restore of {found.name} was interrupted: its data may be a part of the backup. "
                "Nothing was changed.",
                hint=f"Run `{found.command(scope.environment)}` first, to complete it.",
            )
        status = None if found else read_status(api, scope, "")
        is_deploying = status is not None and (
            any(s.kind == "job" and s.phase == "starting" for s in status.services)
            or (status.rollout is not None and status.rollout.outcome is None)
        )
        if is_deploying:
            raise StateError(
                f"A deployment of {self._cluster.ref} is in progress. Nothing was changed.",
                hint=f"Wait until it ends, or run `lapwing abort -e {scope.environment}`; then run "
                "the restore again.",
            )

    def _confirm(self, api: ApiClient, manifest: Manifest, part: Part) -> None:
        options, reporter, ref = self._cluster.options, self._cluster.reporter, self._cluster.ref
        question = (
            f"Stop {ref} on {api.access.context} ({api.access.server}) and replace the data of "
            f"{part.name} with backup {manifest.id}?"
        )
        if not options.yes and not reporter.confirm(question):
            raise UsageError(
                f"`{part.name}` was not replaced: the restore was not confirmed.",
                hint="Run the command again with `--yes`.",
            )

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        """Report a failed Job or wait as BackupError."""
        try:
            yield
        except DeploymentFailed as error:
            raise BackupError(error.message, hint=error.hint, detail=error.detail) from error


def _part(manifest: Manifest, name: str) -> Part:
    """Return the part of a database. Raises UnknownNameError."""
    parts = {p.name: p for p in manifest.parts}
    if name not in parts:
        check_name("database", name, parts, f"backup {manifest.id}")
    return parts[name]
