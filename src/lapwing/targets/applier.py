"""Bringing a commit of the desired state to a cluster, and noting what became of it.

What is applied are the objects of the commit's manifests, and the Secrets of its document: a
document names versions of values, which only the store of secrets on this machine, or the cluster
itself, can turn into values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lapwing.desired import history
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import ClusterUnreachableError, LapwingError, SecretError
from lapwing.kubernetes import apply, secrets, wait, waves
from lapwing.kubernetes.apply import ApplyOptions, ApplyResult
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.health import Health
from lapwing.kubernetes.objects import Object, Reference
from lapwing.kubernetes.secrets import GeneratedSecret
from lapwing.kubernetes.upgrade import guard
from lapwing.kubernetes.upgrade.guard import NO_DOWNTIME, UpgradeOptions
from lapwing.kubernetes.wait import WaitLimits
from lapwing.plan.model import Document
from lapwing.plan.names import secret_part
from lapwing.targets.planned import Where

Tell = Callable[[str], None]


class Bringer:
    """Brings commits to one environment. `say` gets what stays on the screen, `progress` the step
    of the moment."""

    def __init__(
        self, api: ApiClient, scope: Scope, repository: DesiredRepository, store: SecretStore
    ) -> None:
        self.api = api
        self.scope = scope
        self.repository = repository
        self.store = store
        self.where = Where(scope.stack, scope.environment)
        self.say: Tell = lambda _: None
        self.progress: Tell = lambda _: None

    def things(self, document: Document, files: Mapping[str, bytes]) -> list[tuple[int, Object]]:
        """All that is applied: objects of the manifests, and Secrets that have a value here."""
        return [*waves.objects_to_apply(files, document), *((0, s) for s in self._set(document))]

    def _set(self, document: Document) -> list[Object]:
        found: dict[str, Object] = {}
        for service in document.services.values():
            for variable, version in service.secrets.items():
                try:
                    value = self.store.get(
                        self.where.stack, self.where.environment, variable, version
                    )
                except SecretError:
                    continue  # The cluster has it.
                found[variable] = secrets.set_object(self.scope, variable, value, version)
        return list(found.values())

    def _kept(self, document: Document) -> frozenset[Reference]:
        """The Secrets that pods refer to and that are not applied: made up, or set elsewhere."""
        names = {n for s in document.services.values() for n in s.secrets}
        return frozenset(secrets.reference(self.scope, secret_part(n)) for n in names)

    def examine(self, document: Document, files: Mapping[str, bytes]) -> None:
        things = [thing for _, thing in self.things(document, files)]
        apply.check_objects(
            self.api,
            self.scope,
            [self.scope.with_labels(t) for t in things],
        )
        there = {Reference.of(t) for t in things}
        for reference in sorted(self._kept(document) - there):
            if self.api.get(reference) is None:
                raise SecretError(
                    f"{reference} has no value: neither here nor in the cluster.",
                    hint="Nothing was changed. Set it with `lapwing secret set`, then deploy.",
                )

    def guard(
        self,
        document: Document,
        files: Mapping[str, bytes],
        made: Sequence[GeneratedSecret],
        options: UpgradeOptions,
    ) -> list[str]:
        """Do or refuse what cannot be done while a service runs: offline migrations. Secrets that
        are not there yet are made first: the new version is started once, and may need them.

        Raises DowntimeError (nothing was touched), UpgradeError or UpgradeLockedError.
        """
        things = [thing for _, thing in self.things(document, files)]
        if guard.is_upgrade_needed(self.api, self.scope, things):
            for each in made:
                self._make(each)
            for thing in self._set(document):
                self.api.create(self.scope.with_labels(thing))
        return guard.run_upgrades(self.api, self.scope, things, options, self.say)

    def apply(
        self,
        commit: str,
        document: Document,
        files: Mapping[str, bytes],
        made: Sequence[GeneratedSecret],
        upgrade: UpgradeOptions | None = NO_DOWNTIME,
    ) -> ApplyResult:
        """Bring a commit to the cluster, and note what became of it. Interrupted, it notes nothing,
        and the next run goes on. `upgrade` is None where the guard has looked already."""
        found = self.things(document, files)

        def settle() -> None:
            for each in made:
                self._make(each)

        def ready(references: Sequence[Reference]) -> dict[Reference, Health]:
            return wait.wait_until_ready(
                self.api, references, limits=WaitLimits(), tell=self.progress
            )

        course = ApplyOptions(waves.wave_numbers(found), settle, self._kept(document), waves.AFTER)
        try:
            if upgrade is not None:
                self.guard(document, files, made, upgrade)
            applied = apply.apply_objects(
                self.api, self.scope, [thing for _, thing in found],
                commit=commit, wait=ready, tell=self.say, course=course,
            )  # fmt: skip
        except ClusterUnreachableError:
            raise
        except LapwingError as error:
            self.note(commit, "failed", error.message)
            raise
        if not applied.held:
            self.note(commit, "succeeded")
        return applied

    def _make(self, made: GeneratedSecret) -> None:
        thing = secrets.generate(self.scope, made)
        if made.adds:
            self.api.patch(Reference.of(thing), {"stringData": thing["stringData"]})
        elif self.api.create(thing) is not None:
            self.progress(f"made up {Reference.of(thing)}")

    def note(self, commit: str, outcome: str, reason: str | None = None) -> None:
        """Note what became of a commit, and of those before it that nothing became of."""
        self.repository.note(commit, outcome, reason)
        for other in history.open_(
            self.repository, self.where.stack, self.where.environment, commit
        ):
            self.repository.note(other, "superseded")
