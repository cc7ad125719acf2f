"""The target `argocd`: deploy and rollback commit manifests and push; Argo CD applies them.

`promote` and `abort` act on the Rollouts in the cluster, as Argo Rollouts' kubectl plugin does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

from lapwing.desired.history import Entry, history
from lapwing.desired.remote import Remote
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import UsageError
from lapwing.plan.model import Deployment
from lapwing.stack.load import StackFile
from lapwing.system import home
from lapwing.system.git import find_revision
from lapwing.targets import guards, manifests, planned
from lapwing.targets.base import (
    DeployRequest,
    DeployResult,
    DownRequest,
    EnvironmentRef,
    Outcome,
    RollbackRequest,
    StatusReport,
    Verb,
    actor_name,
    services_of,
)
from lapwing.targets.cluster import ClusterEnvironment
from lapwing.targets.manifests import Images
from lapwing.targets.planned import PlannedChange


class ArgoCDTarget:
    """An environment on a cluster that Argo CD applies."""

    name: Literal["argocd"] = "argocd"

    def __init__(self, file: StackFile, cluster: ClusterEnvironment) -> None:
        self.file = file
        self.cluster = cluster
        self.ref: EnvironmentRef = cluster.ref
        self.settings = cluster.settings

    def deploy(self, request: DeployRequest) -> DeployResult:
        """Build and push images, commit the manifests with their digests, and push."""
        from lapwing.targets import cluster_images
        from lapwing.targets.cluster_images import BuiltImages
        from lapwing.targets.sources import wanted_services

        self._refuse_options(request)
        loaded = self.file.load(self.ref.environment)
        manifests.desired_url(loaded)
        wanted_services(loaded, request.services)
        deployment = Deployment(
            kind="deploy",
            actor=self._actor,
            revision=find_revision(loaded.folder, self.settings.environ),
            hold=request.hold,
        )

        names = cluster_images.to_build(loaded, request.services, request.images)
        destination = cluster_images.registry_of(loaded)
        built = BuiltImages(loaded)
        if names and destination is not None:
            with self.cluster.reporter.working("building"):
                built = cluster_images.build(
                    loaded, self.settings, names, destination, self._report
                )
        images = Images({**request.images, **built.references}, built.revisions)

        def plan(repository: DesiredRepository) -> PlannedChange:
            return manifests.plan(repository, loaded, request.services, images, deployment)

        can_hold = loaded.settings.rollouts is not False
        deliver = partial(built.deliver, self.settings, self._report)
        return self._commit(request.verb, plan, request, can_hold=can_hold, deliver=deliver)

    def rollback(self, request: RollbackRequest) -> DeployResult:
        """Commit the manifests of an earlier deployment, and push."""
        from lapwing.targets.rollback_images import keep_hashed_files

        manifests.refuse_services(request.services, self.ref.environment)

        def plan(repository: DesiredRepository) -> PlannedChange:
            change = planned.rollback(
                repository, self.ref, self._actor, release=request.release, any_outcome=True
            )
            return keep_hashed_files(self.file, change, self.settings, self.cluster.reporter.say)

        return self._commit("rollback", plan, DeployRequest())

    def promote(self) -> DeployResult:
        """Switch traffic of every paused rollout in the cluster."""
        return self._change_rollouts("promote")

    def abort(self) -> DeployResult:
        """Abort every rollout in progress in the cluster."""
        return self._change_rollouts("abort")

    def down(self, request: DownRequest) -> DeployResult:
        """Refuse: Argo CD would recreate what is removed."""
        raise UsageError(
            f"{self.ref} is applied by Argo CD, which would recreate the removed objects.",
            hint="Delete its Application in Argo CD.",
        )

    def status(self) -> StatusReport:
        """Read what the cluster runs."""
        return self.cluster.status()

    def history(self, limit: int) -> list[Entry]:
        """List the deployments of the desired-state repository."""
        remote = self._remote()
        remote.fetch()
        return history(remote.repository, self.ref.stack, self.ref.environment, limit)

    def _report(self, text: str) -> None:
        self.cluster.reporter.progress(text)

    @property
    def _actor(self) -> str:
        return actor_name(self.settings, self.file.path.parent)

    def _remote(self) -> Remote:
        url = self.file.environment(self.ref.environment).get("repository")
        if not url:
            raise manifests.no_repository(self.ref.environment)
        home.prepare(self.settings.home)
        return Remote(str(url), self.settings.remotes, self.settings.environ)

    def _commit(
        self,
        verb: Verb,
        make: Callable[[DesiredRepository], PlannedChange],
        request: DeployRequest,
        *,
        can_hold: bool = True,
        deliver: Callable[[], None] = lambda: None,
    ) -> DeployResult:
        """Plan, check, deliver images, commit and push; again when another commit came first."""
        from lapwing.targets import deployed_tags

        plans: list[PlannedChange] = []

        def attempt(repository: DesiredRepository) -> str | None:
            plan = make(repository)
            plans.append(plan)
            rules = guards.Rules(can_hold, request.allow_downtime)
            checked = guards.check(repository, plan, verb, rules)
            if request.dry_run or manifests.is_unchanged(repository, plan):
                return None
            deliver()
            return guards.commit(repository, checked)

        with self.cluster.reporter.working("committing"):
            commit = self._remote().commit(attempt)
        plan = plans[-1]
        if commit is not None:
            deployed_tags.update_tags(self.file, plan, self.settings, self.cluster.reporter.say)
        outcome: Outcome = "committed" if commit else "unchanged"
        return DeployResult(
            stack=self.ref.stack,
            environment=self.ref.environment,
            target=self.name,
            kind=verb,
            outcome="dry-run" if request.dry_run else outcome,
            commit=commit,
            changes=plan.changes,
            services=services_of(plan.document),
            url=f"https://{self.cluster.domain}" if self.cluster.domain else None,
        )

    def _change_rollouts(self, verb: Literal["promote", "abort"]) -> DeployResult:
        with self.cluster.connect() as api:
            self.cluster.confirm(api, verb)
            return self.cluster.change_rollouts(api, verb, self.name)

    def _refuse_options(self, request: DeployRequest) -> None:
        name = self.ref.environment
        if self.cluster.options.create:
            raise UsageError(
                f"The cluster of {name} is applied by Argo CD and is not created by --create.",
                hint=f"Run `lapwing infra -e {name}` to write its Terraform configuration.",
            )
        if request.backup or request.restore:
            raise UsageError(
                f"--backup and --restore have no effect on {name}, which Argo CD applies.",
                hint="Stop the service and back up its database; see docs/how-to/kubernetes.md.",
            )
