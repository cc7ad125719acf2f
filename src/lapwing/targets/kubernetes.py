"""The target `kubernetes`: a cluster that Lapwing applies itself (kind, minikube, any kubeconfig).

    plan -> guards -> commit -> apply, wave by wave -> outcome

As on a machine, one commit of this machine's desired state is one deployment, and its outcome is
recorded. There is no agent: the command applies the commit. It may be interrupted at any moment,
because each step states what should be, and the same command continues where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from lapwing.desired.history import IN_PROGRESS, Entry, history, last_failure
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import DeploymentFailed, StateError
from lapwing.kubernetes import local_state, pods, restores
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.status import read_status
from lapwing.plan.model import Deployment
from lapwing.stack.load import StackFile
from lapwing.system.git import find_revision
from lapwing.targets import guards, manifests, planned
from lapwing.targets.base import (
    DeployRequest,
    DeployResult,
    DownRequest,
    EnvironmentRef,
    RollbackRequest,
    Rollout,
    StatusReport,
    Verb,
    actor_name,
)
from lapwing.targets.cluster import ClusterEnvironment
from lapwing.targets.guards import CheckedChange, Rules
from lapwing.targets.kubernetes_result import SEARCHED_DEPLOYMENTS, Progress, failure_hint
from lapwing.targets.planned import PlannedChange

if TYPE_CHECKING:
    from lapwing.kubernetes.upgrade.guard import UpgradeOptions
    from lapwing.targets.applier import Applier


class KubernetesTarget:
    """An environment on a cluster that Lapwing applies itself."""

    name: Literal["kubernetes"] = "kubernetes"

    def __init__(self, file: StackFile, cluster: ClusterEnvironment) -> None:
        self.file = file
        self.cluster = cluster
        self.ref: EnvironmentRef = cluster.ref
        self.scope: Scope = cluster.scope
        self.settings = cluster.settings
        self.reporter = cluster.reporter
        self.repository = DesiredRepository(cluster.settings.desired)

    def deploy(self, request: DeployRequest) -> DeployResult:
        """Build images, commit, apply wave by wave, and wait until everything is ready."""
        from lapwing.targets import cluster_images, kubernetes_plan
        from lapwing.targets.cluster_images import BuiltImages, Destination

        loaded = self.file.load(self.ref.environment)
        options = kubernetes_plan.upgrade_options(request, self._actor, self.settings)

        def build(names: list[str], destination: Destination) -> BuiltImages:
            return cluster_images.build(
                loaded, self.settings, names, destination, self.reporter.progress
            )

        def run(applier: Applier, done: Progress) -> None:
            with self.reporter.working("reading the cluster"):
                deployment = Deployment(
                    actor=self._actor,
                    revision=find_revision(loaded.folder, self.settings.environ),
                    hold=request.hold,
                )
                plan = kubernetes_plan.plan(applier, loaded, request, deployment, build)
            checked, generated = plan.checked, plan.generated
            done.plan = checked.plan
            if request.dry_run:
                return
            for change in checked.plan.changes:
                self.reporter.say(f"  {change}")
            with self.reporter.working("deploying"):
                plan.built.deliver(self.settings, self.reporter.progress)
                upgrade: UpgradeOptions | None = options
                if not options.allow_downtime:  # Refused before anything is committed.
                    applier.upgrade(checked.plan, generated, options)
                    upgrade = None
                self._commit(checked, done)
                assert done.commit is not None
                done.applied = applier.apply(done.commit, done.plan, generated, upgrade)

        return self._run(request.verb, run, dry_run=request.dry_run)

    def promote(self) -> DeployResult:
        """Switch traffic to a paused deployment, and wait for its end."""
        from lapwing.kubernetes import rollouts

        def run(applier: Applier, done: Progress) -> None:
            status = read_status(applier.api, self.scope, "")
            plan = planned.promote(self.repository, status, self.ref, self._actor)
            checked = self._check("promote", applier, plan)
            rollouts.promote(applier.api, self.scope)
            self._apply(applier, checked, done)
            assert plan.expected is not None
            self.repository.record_outcome(plan.expected, "succeeded")

        return self._run_or_change_rollouts("promote", run)

    def abort(self) -> DeployResult:
        """Restore the last successful deployment.

        It replaces one that is paused, has failed or was interrupted.
        """
        from lapwing.kubernetes import rollouts

        def run(applier: Applier, done: Progress) -> None:
            entries = self.history(200)
            if not entries or entries[0].outcome == "succeeded":
                raise planned.nothing_in_progress("abort", self.ref)
            earlier = next((e for e in entries if e.outcome == "succeeded" and e.services), None)
            if earlier is None:
                option = f" -e {self.ref.environment}"
                raise StateError(
                    "No deployment has succeeded before this one: there is nothing to restore.",
                    hint=f"Run `lapwing up{option}` to continue it, or `lapwing down{option}` to "
                    "remove it.",
                )
            plan = planned.restore(self.repository, self.ref, self._actor, earlier.commit)
            checked = self._check("abort", applier, plan)
            try:
                rollouts.abort(applier.api, self.scope)
            except StateError:
                pass  # No Rollout is in progress; the objects are restored all the same.
            self.repository.record_outcome(
                entries[0].commit, "aborted", plan.document.deployment.reason
            )
            self._apply(applier, checked, done)

        return self._run_or_change_rollouts("abort", run)

    def rollback(self, request: RollbackRequest) -> DeployResult:
        """Restore an earlier deployment with its settings and secrets.

        A rollback that was interrupted continues.
        """
        from lapwing.targets.rollback_images import keep_hashed_files

        manifests.refuse_services(request.services, self.ref.environment)

        def run(applier: Applier, done: Progress) -> None:
            newest = next(iter(self.history(1)), None)
            if newest and (newest.outcome, newest.kind) == (IN_PROGRESS, "rollback"):
                done.commit, done.is_new = newest.commit, False
                done.plan = planned.present(self.repository, self.ref)
                applier.examine(done.plan)
                done.applied = applier.apply(newest.commit, done.plan)
                return
            plan = planned.rollback(self.repository, self.ref, self._actor, release=request.release)
            plan = keep_hashed_files(self.file, plan, self.settings, self.reporter.say)
            self._apply(applier, self._check("rollback", applier, plan), done)

        return self._run("rollback", run)

    def down(self, request: DownRequest) -> DeployResult:
        """Remove what was applied, and wait until its pods have ended.

        Volumes and generated secrets are removed only with `volumes`.
        """
        if request.cluster:
            return self._remove_cluster()

        def run(applier: Applier, done: Progress) -> None:
            if request.volumes:
                question = f"Remove the data of {self.ref}?"
                guards.confirm_removal(question, self.cluster.options, self.reporter)
            else:
                restores.check_none(applier.api, self.scope)
            with self.reporter.working("removing"):
                self._remove(applier, request, done)

        return self._run("down", run)

    def status(self) -> StatusReport:
        """Read what the cluster runs."""
        where = (self.ref.stack, self.ref.environment)
        failure = last_failure(self.repository, *where, with_outcomes=True)
        return replace(self.cluster.status(), last_failure=failure)

    def history(self, limit: int) -> list[Entry]:
        """List the deployments of this machine's repository."""
        stack, environment = self.ref.stack, self.ref.environment
        return history(self.repository, stack, environment, limit, with_outcomes=True)

    @property
    def _actor(self) -> str:
        return actor_name(self.settings, self._folder)

    @property
    def _folder(self) -> Path:
        return self.file.path.parent

    def _run_or_change_rollouts(
        self, verb: Literal["promote", "abort"], run: Callable[[Applier, Progress], None]
    ) -> DeployResult:
        """Run a verb; only Rollouts are changed if this machine did not apply the environment."""
        if self.repository.newest(self.ref.stack, self.ref.environment) is not None:
            return self._run(verb, run)
        with self._changing(verb) as api:
            return self.cluster.change_rollouts(api, verb, self.name)

    def _run(
        self, verb: Verb, run: Callable[[Applier, Progress], None], *, dry_run: bool = False
    ) -> DeployResult:
        """Run a verb as the only command that changes the environment; return its result."""
        from lapwing.targets.applier import Applier
        from lapwing.targets.logins import Logins

        done = Progress()
        before = self.repository.latest_valid(self.ref.stack, self.ref.environment)
        guards.check_folder(self._folder, before)
        try:
            with self._changing(verb, dry_run=dry_run) as api:
                store = SecretStore(self.settings.secrets)
                logins = Logins(self.settings)
                applier = Applier(api, self.scope, self.repository, store, self.reporter, logins)
                if not dry_run:
                    applier.await_namespace()
                run(applier, done)
                self._tag_images(done)
                url = self.cluster.url(api) or None
                if dry_run:
                    assert done.plan is not None
                    changes = [*done.plan.changes, *applier.dry_run(done.plan)]
                    result = done.result(self.ref, verb, "dry-run", url=url)
                    return msgspec.structs.replace(result, changes=changes)
                return done.result(self.ref, verb, done.outcome, url=url)
        except KeyboardInterrupt:
            hint = f"Run `lapwing {verb} -e {self.ref.environment}` to continue."
            return done.result(self.ref, verb, "interrupted", hint=hint)
        except DeploymentFailed as error:
            if done.commit is None:
                raise
            return done.result(
                self.ref,
                verb,
                "failed",
                reason=error.message,
                detail=error.detail,
                hint=failure_hint(error.hint, self.ref, self.history(SEARCHED_DEPLOYMENTS)),
            )

    @contextmanager
    def _changing(self, verb: Verb, *, dry_run: bool = False) -> Iterator[ApiClient]:
        """Yield a client for one command at a time, after a question where one is due."""
        with guards.exclusive(self.cluster.folder, self.ref), self._connect() as api:
            if not dry_run:
                self.cluster.confirm(api, verb)
                local_state.save_context(self.cluster.folder, api.access.context)
            yield api

    def _commit(self, checked: CheckedChange, done: Progress) -> None:
        """Commit a plan, or continue the present commit if nothing changes."""
        done.plan = checked.plan
        if not manifests.is_unchanged(self.repository, checked.plan):
            done.commit = guards.commit(self.repository, checked, self._folder)
            return
        done.commit, done.is_new = checked.plan.expected, False
        done.plan = planned.present(self.repository, self.ref)

    def _check(self, verb: Verb, applier: Applier, plan: PlannedChange) -> CheckedChange:
        """Check a plan made from the history against the commits and against the cluster."""
        applier.examine(plan)
        rules = Rules(running=partial(pods.running_images, applier.api, self.scope))
        return guards.check(self.repository, plan, verb, rules)

    def _apply(self, applier: Applier, checked: CheckedChange, done: Progress) -> None:
        """Commit and apply a plan made from the history."""
        done.plan = checked.plan
        for change in checked.plan.changes:
            self.reporter.say(f"  {change}")
        with self.reporter.working("applying"):
            done.commit = guards.commit(self.repository, checked, self._folder)
            done.applied = applier.apply(done.commit, checked.plan)

    def _remove(self, applier: Applier, request: DownRequest, done: Progress) -> None:
        from lapwing.kubernetes import prune
        from lapwing.kubernetes.apply import ApplyResult

        api, scope = applier.api, self.scope
        is_applied = api.get(scope.applyset) is not None
        try:
            self._commit_removal(done)
        except StateError:
            if not is_applied and not request.volumes:
                raise
            newest = next(iter(self.history(1)), None)
            if newest and (newest.kind, newest.outcome) == ("down", IN_PROGRESS):
                done.commit = newest.commit  # It was interrupted.
        removed = prune.delete_all(api, scope, self.reporter.progress)
        prune.wait_for_pod_termination(api, scope, self.reporter.progress)
        if request.volumes:
            removed += prune.delete_data(api, scope)
        done.applied = ApplyResult(pruned=removed)
        if done.commit is not None:
            applier.record(done.commit, "succeeded")

    def _commit_removal(self, done: Progress) -> None:
        """Commit that nothing runs. Raises StateError if nothing is deployed."""
        plan = planned.down(self.repository, self.ref, self._actor)
        done.commit = guards.commit(self.repository, guards.check(self.repository, plan, "down"))
        done.plan = plan

    def _remove_cluster(self) -> DeployResult:
        """Remove the local cluster with everything in it."""
        done = Progress()
        with guards.exclusive(self.cluster.folder, self.ref):
            name = self.cluster.delete()
            try:
                self._commit_removal(done)
                self.repository.record_outcome(str(done.commit), "succeeded")
                self._tag_images(done)
            except StateError:
                pass  # Nothing was deployed.
        result = done.result(self.ref, "down", "succeeded")
        return msgspec.structs.replace(result, rollout=Rollout(removed=[f"Cluster {name}"]))

    def _tag_images(self, done: Progress) -> None:
        """Tag the images of a deployment that is not paused, and report what failed."""
        from lapwing.targets import deployed_tags

        if done.plan is not None and done.commit is not None and not done.is_held:
            deployed_tags.update_tags(self.file, done.plan, self.settings, self.reporter.say)

    def _connect(self) -> ApiClient:
        """Return the client of a cluster that answers; the cluster is created on request."""
        if self.cluster.options.create:
            self.cluster = self.cluster.create()
        api = self.cluster.connect()
        api.version()
        return api
