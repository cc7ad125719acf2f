"""Apply commits of the desired state to a cluster, and record their outcome.

Applied are the objects of the commit's manifests and the Secrets of its document: a document has
versions of values; only the secret store of this machine, or the cluster, has the values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lapwing.desired import history
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import ClusterUnreachableError, LapwingError, SecretError
from lapwing.kubernetes import apply, routes, secrets, volumes, wait, waves
from lapwing.kubernetes.apply import ApplyOptions, ApplyResult
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.health import Health
from lapwing.kubernetes.objects import Object, Reference, is_terminating
from lapwing.kubernetes.secrets import GeneratedSecret
from lapwing.kubernetes.upgrade import guard
from lapwing.kubernetes.upgrade.guard import NO_DOWNTIME, UpgradeOptions
from lapwing.kubernetes.verify import EdgeRequests
from lapwing.kubernetes.wait import WaitLimits
from lapwing.plan.diff import Action, Change
from lapwing.plan.model import Document
from lapwing.plan.names import PULL_SECRET, secret_part
from lapwing.targets.base import Reporter
from lapwing.targets.logins import Logins
from lapwing.targets.planned import PlannedChange

ACTIONS: dict[str, Action] = {"create": "create", "change": "update", "remove": "delete"}


class Applier:
    """Applies commits to one environment."""

    def __init__(
        self, api: ApiClient, scope: Scope, repository: DesiredRepository, store: SecretStore,
        reporter: Reporter, logins: Logins,
    ) -> None:  # fmt: skip
        self.api = api
        self.scope = scope
        self.repository = repository
        self.store = store
        self.reporter = reporter
        self.logins = logins

    def await_namespace(self) -> None:
        """Wait while the namespace is being deleted: what it still holds is not for this command.

        Raises ClusterError on a timeout.
        """
        namespace = self.api.get(self.scope.home)
        if namespace is not None and is_terminating(namespace):
            apply.wait_for_deletion(self.api, [namespace], self.reporter.say)

    def things(self, plan: PlannedChange) -> list[tuple[int, Object]]:
        """List the objects of the manifests and the Secrets with a value here, with their waves."""
        secret_objects = [(0, secret) for secret in self._stored_secrets(plan.document)]
        secret_objects += [(0, secret) for secret in self._pull_secret(plan)]
        found = waves.objects_to_apply(plan.files or {}, plan.document)
        if plan.document.deployment.restores is not None:
            found = [(wave, self._with_live_volumes(thing)) for wave, thing in found]
        return [*found, *secret_objects]

    def _with_live_volumes(self, thing: Object) -> Object:
        """Return an object of an earlier deployment: its volumes may have grown since."""
        live = self.api.get(Reference.of(thing)) if thing["kind"] == "StatefulSet" else None
        return thing if live is None else volumes.with_sizes_of(thing, live)

    def objects(self, plan: PlannedChange) -> list[Object]:
        """List the objects to apply."""
        return [thing for _, thing in self.things(plan)]

    def dry_run(self, plan: PlannedChange) -> list[Change]:
        """Return what applying would change, as the API server computes it."""
        found = apply.dry_run(self.api, self.scope, self.objects(plan))
        return [
            Change(kind=reference.kind, name=reference.name, action=ACTIONS[what])
            for reference, what in sorted(found.items())
            if what in ACTIONS
        ]

    def examine(self, plan: PlannedChange) -> None:
        """Check a plan against the cluster before anything is changed.

        Every kind is known, no object is unmanaged, no secret is missing, and no upgrade in
        progress is left behind.
        """
        things = self.objects(plan)
        guard.check_in_progress(self.api, self.scope, things)
        apply.check_objects(self.api, self.scope, [self.scope.with_labels(t) for t in things])
        applied = {Reference.of(t) for t in things}
        for reference in sorted(self._referenced_secrets(plan.document) - applied):
            if self.api.get(reference) is None:
                raise SecretError(
                    f"{reference} has no value, neither on this machine nor in the cluster.",
                    hint="Nothing was changed. Run "
                    f"`lapwing secret set NAME -e {self.scope.environment}`, then deploy again.",
                )

    def upgrade(
        self, plan: PlannedChange, generated: Sequence[GeneratedSecret], options: UpgradeOptions
    ) -> None:
        """Run or refuse offline migrations.

        Missing Secrets are created first, because the new version is started once to find out
        whether it needs a migration.

        Raises DowntimeError (nothing was changed), UpgradeError or UpgradeLockedError.
        """
        things = self.objects(plan)
        if guard.is_upgrade_needed(self.api, self.scope, things):
            self._generate(generated)
            for secret in self._stored_secrets(plan.document):
                self.api.create(self.scope.with_labels(secret))
        guard.run_upgrades(self.api, self.scope, things, options, self.reporter.say)

    def apply(
        self,
        commit: str,
        plan: PlannedChange,
        generated: Sequence[GeneratedSecret] = (),
        options: UpgradeOptions | None = NO_DOWNTIME,
    ) -> ApplyResult:
        """Apply a commit and record its outcome.

        Interrupted, it records nothing, and the next run continues. `options` are None where
        `upgrade` has run already. Raises DeploymentFailed and other errors of the cluster.
        """
        found = self.things(plan)
        course = ApplyOptions(
            waves.wave_numbers(found),
            lambda: self._generate(generated),
            self._referenced_secrets(plan.document) | {self._pull_reference},
            waves.AFTER,
        )
        try:
            if options is not None:
                self.upgrade(plan, generated, options)
            applied = apply.apply_objects(
                self.api, self.scope, [thing for _, thing in found],
                commit=commit, wait=self._wait, report=self.reporter.say, course=course,
            )  # fmt: skip
            if not applied.held:
                self._check_routes(plan.document)
        except ClusterUnreachableError:
            raise
        except LapwingError as error:
            self.record(commit, "failed", error.message)
            raise
        guard.record_migrations(self.api, [thing for _, thing in found])
        if not applied.held:
            self.record(commit, "succeeded")
        return applied

    def record(self, commit: str, outcome: str, reason: str | None = None) -> None:
        """Record the outcome of a commit; earlier ones without an outcome are superseded."""
        self.repository.record_outcome(commit, outcome, reason)
        stack, environment = self.scope.stack, self.scope.environment
        found = history.commits(self.repository, stack, environment, commit)
        for other in [c for c, has_outcome in found.items() if not has_outcome]:
            self.repository.record_outcome(other, "superseded")

    def _check_routes(self, document: Document) -> None:
        paths = {n: s.health.path or s.route for n, s in document.services.items() if s.route}
        requests = EdgeRequests(paths, next(iter(document.domains), "localhost"))
        if paths:
            routes.wait_until_answered(
                self.api, self.scope, requests, report=self.reporter.progress, say=self.reporter.say
            )

    def _wait(self, references: Sequence[Reference]) -> dict[Reference, Health]:
        limits = WaitLimits()
        return wait.wait_until_ready(
            self.api, references, limits=limits, report=self.reporter.progress
        )

    def _stored_secrets(self, document: Document) -> list[Object]:
        """Return the Secrets whose value is stored on this machine; the cluster has the others."""
        where = (self.scope.stack, self.scope.environment)
        found: dict[str, Object] = {}
        for service in document.services.values():
            for variable, version in service.secrets.items():
                try:
                    value = self.store.get(*where, variable, version)
                except SecretError:
                    continue
                found[variable] = secrets.set_object(self.scope, variable, value, version)
        return list(found.values())

    @property
    def _pull_reference(self) -> Reference:
        return secrets.reference(self.scope, PULL_SECRET)

    def has_pull_secret(self, images: Iterable[str]) -> bool:
        """Return whether pods have a Secret to pull these images with.

        One that exists is used as well: another user, or kubectl, has created it.
        """
        if self.logins.find(images, self.reporter.say):
            return True
        return self.api.get(self._pull_reference) is not None

    def _pull_secret(self, plan: PlannedChange) -> list[Object]:
        """Return the Secret with the logins of registries, if the manifests refer to it.

        An existing one that is not managed by Lapwing is used unchanged.
        """
        reference = self._pull_reference
        files = (plan.files or {}).values()
        if not any(reference.name.encode() in data for data in files):
            return []
        images = [s.image for s in plan.document.services.values() if s.image]
        logins = self.logins.find(images, self.reporter.say)
        found = self.api.get(reference)
        if not logins or (found is not None and not self.scope.manages(found)):
            return []
        return [secrets.registry_object(self.scope, logins)]

    def _referenced_secrets(self, document: Document) -> frozenset[Reference]:
        """Return the Secrets that pods refer to, also those that are not applied."""
        names = {n for s in document.services.values() for n in s.secrets}
        return frozenset(secrets.reference(self.scope, secret_part(n)) for n in names)

    def _generate(self, generated: Sequence[GeneratedSecret]) -> None:
        for each in generated:
            thing = secrets.generate(self.scope, each)
            if each.adds:
                self.api.patch(Reference.of(thing), {"stringData": thing["stringData"]})
            elif self.api.create(thing) is not None:
                self.reporter.progress(f"generated {Reference.of(thing)}")
