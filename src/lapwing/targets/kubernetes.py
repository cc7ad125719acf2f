"""An environment on a cluster that Lapwing applies itself: kind, minikube, any kubeconfig.

    document and manifests -> all that could be wrong -> commit -> apply, wave by wave -> outcome

What is wanted is a commit of the desired state on this machine, as for a machine's environments:
one commit is one deployment, and what became of it is noted. There is no agent; the command itself
brings the commit to the cluster, and may be interrupted at any moment, because each step says what
should be: the same command goes on where it was. One command at a time changes an environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from lapwing.build.source import revision as revision_of
from lapwing.desired import history
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import UsageError
from lapwing.kubernetes import apply, applyset, prune, rollouts, secrets
from lapwing.kubernetes.apply import ApplyResult
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference
from lapwing.kubernetes.secrets import GeneratedSecret, SecretPlan
from lapwing.kubernetes.status import read_status
from lapwing.kubernetes.upgrade.guard import NO_DOWNTIME, UpgradeOptions
from lapwing.plan import diff
from lapwing.plan.diff import Change
from lapwing.plan.model import Deployment, Document
from lapwing.plan.names import EDGE_CERTIFICATE, INSTANCE
from lapwing.render.kubernetes import render
from lapwing.render.kubernetes import secrets as needed
from lapwing.render.kubernetes.target import Target
from lapwing.settings import Settings
from lapwing.stack.load import LoadedStack
from lapwing.targets import manifests
from lapwing.targets import planned as change
from lapwing.targets.applier import Bringer
from lapwing.targets.planned import Where

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Talk:
    """Who is told: `say` for what stays on the screen, `progress` for the step of the moment."""

    say: Tell = lambda _: None
    progress: Tell = lambda _: None


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asks for of a deployment."""

    services: tuple[str, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    hold: bool = False
    upgrade: UpgradeOptions = NO_DOWNTIME


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did. `is_new` if it committed, and not only went on with what was there."""

    commit: str
    document: Document
    changes: list[Change]
    applied: ApplyResult
    is_new: bool = True

    @property
    def held(self) -> bool:
        """Whether it waits for a person."""
        return bool(self.applied.held)


@dataclass(frozen=True, slots=True)
class Ready:
    """A deployment of which nothing that can be known beforehand is wrong."""

    prepared: manifests.Prepared
    made: list[GeneratedSecret]
    upgrade: UpgradeOptions = NO_DOWNTIME


class Direct:
    """The acts on one environment. Raises ClusterError and its kin, and DesiredStateError."""

    def __init__(
        self, settings: Settings, api: ApiClient, scope: Scope, actor: str, talk: Talk
    ) -> None:
        self.settings = settings
        self.api = api
        self.scope = scope
        self.actor = actor
        self.talk = talk
        self.repository: DesiredRepository = DesiredRepository(settings.desired)
        self.where = Where(scope.stack, scope.environment)
        self.bring = Bringer(api, scope, self.repository, SecretStore(settings.secrets))
        self.bring.say, self.bring.progress = talk.say, talk.progress

    @property
    def known(self) -> bool:
        """Whether anything of the environment was ever wanted on this machine."""
        return self.repository.newest(self.where.stack, self.where.environment) is not None

    def prepare(self, loaded: LoadedStack, wish: Wish) -> Ready:
        """Find out all that could be wrong, and change nothing.

        Raises UsageError, SecretError, KindMissingError or UnmanagedObjectError.
        """
        self.repository.ensure()
        images = self._images(loaded, wish)
        deployment = Deployment(
            actor=self.actor,
            revision=revision_of(loaded.folder, self.settings.environ),
            hold=wish.hold,
        )
        first = manifests.prepare(self.repository, loaded, wish.services, images, deployment)
        images |= {n: s.image for n, s in first.document.services.items() if s.image}
        target = render.target(loaded, images, deployment.revision, hold=wish.hold)
        _check_hold(target, wish.hold)
        self._tell_untested(target)
        choice = self._secrets(target, first.files)
        secrets.check_missing(choice, self.where.environment)
        prepared = manifests.prepare(
            self.repository, loaded, wish.services, images, deployment, choice.versions
        )
        self.bring.examine(prepared.document, prepared.files)
        return Ready(prepared, choice.generated, wish.upgrade)

    def rehearse(self, ready: Ready) -> dict[Reference, str]:
        """What the deployment would do to each object; see `apply.dry_run`."""
        things = self.bring.things(ready.prepared.document, ready.prepared.files)
        return apply.dry_run(self.api, self.scope, [thing for _, thing in things])

    def deploy(self, ready: Ready) -> Result:
        """Commit a deployment, unless the same is wanted already, and bring it to the cluster.

        Raises ConflictError if another one came first, DowntimeError if an upgrade with an outage
        is needed that nobody allowed, UpgradeError, DeploymentFailed or ClusterError.
        """
        prepared = ready.prepared
        upgrade: UpgradeOptions | None = ready.upgrade
        if not ready.upgrade.allow_downtime:  # Refuse before anything is wanted.
            self.bring.guard(prepared.document, prepared.files, ready.made, ready.upgrade)
            upgrade = None
        commit = manifests.commit(self.repository, prepared)
        document, is_new = prepared.document, commit is not None
        if commit is None:  # Go on with what is wanted; what was brought back stays that.
            where = (self.where.stack, self.where.environment)
            commit, known = self.repository.newest(*where), self.repository.understood(*where)
            assert commit is not None
            document = known or document
        applied = self.bring.apply(commit, document, prepared.files, ready.made, upgrade)
        return Result(commit, document, prepared.changes, applied, is_new)

    def rollback(self, loaded: LoadedStack, release: str | None) -> Result:
        """Bring back what was there before, with its settings and its secrets; one that was
        interrupted goes on. Raises UsageError if there is nothing to go back to."""
        stack, environment = self.where.stack, self.where.environment
        entries = self._history(1)
        present = self.repository.understood(stack, environment)
        newest = entries[0] if entries else None
        if (
            newest
            and present
            and (newest.outcome, newest.kind) == (history.IN_PROGRESS, "rollback")
        ):
            files = self.repository.manifests(stack, environment, newest.commit)
            applied = self.bring.apply(newest.commit, present, files, [])
            return Result(newest.commit, present, [], applied, is_new=False)
        act = change.rollback(self.repository, self.where, self.actor, release=release)
        if present is not None:
            refuse_offline(loaded, present, act.document)
        return self._restore(act.document, act.expected)

    def promote(self) -> Result:
        """Let a held deployment go on, and see it to its end. Raises UsageError if none is held."""
        status = read_status(self.api, self.scope, "")
        head = self.repository.newest(self.where.stack, self.where.environment)
        rollouts.promote(self.api, self.scope)
        act = change.promote(self.repository, status, self.where, self.actor)
        assert head is not None
        files = self.repository.manifests(self.where.stack, self.where.environment, head)
        commit = self.repository.commit(act.document, expected=act.expected, files=files)
        applied = self.bring.apply(commit, act.document, files, [])
        self.repository.note(head, "succeeded")
        return Result(commit, act.document, [], applied)

    def abort(self) -> Result:
        """Stop a deployment that is held, has failed or was interrupted: want again what succeeded
        last. Raises UsageError if none is in flight, or nothing succeeded before."""
        entries = self._history(200)
        if not entries or entries[0].outcome == "succeeded":
            raise UsageError(
                "There is no deployment in flight to abort.",
                hint="`lapwing rollback` goes back from one that has succeeded.",
            )
        before = next((e for e in entries if e.outcome == "succeeded" and e.services), None)
        if before is None:
            raise UsageError(
                "No deployment has succeeded before this one: there is nothing to go back to.",
                hint="`lapwing up` goes on with it; `lapwing down` removes it.",
            )
        document = self.repository.read(self.where.stack, self.where.environment, before.commit)
        assert document is not None
        try:
            rollouts.abort(self.api, self.scope)
        except UsageError:
            pass  # No Rollout is in flight; the objects are set back all the same.
        act = change.with_act(
            document, "abort", self.actor, restores=before.commit,
            reason=f"{self.actor} aborted it",
        )  # fmt: skip
        self.repository.note(entries[0].commit, "aborted", act.deployment.reason)
        return self._restore(act, entries[0].commit)

    def down(self, *, data: bool = False) -> tuple[str | None, list[Reference]]:
        """Remove what was applied, and wait until its pods are gone; volumes, and secrets that were
        made up, go only with `data`. Returns the commit (None if nothing was wanted already) and
        what went.

        Raises UsageError if there is nothing.
        """
        there = self.api.get(self.scope.applyset) is not None
        commit = None
        try:
            act = change.down(self.repository, self.where, self.actor)
            commit = self.repository.commit(act.document, expected=act.expected, files={})
        except UsageError:
            if not there and not data:
                raise
            newest = self._history(1)
            if newest and (newest[0].kind, newest[0].outcome) == ("down", history.IN_PROGRESS):
                commit = newest[0].commit  # It was interrupted.
        gone = prune.delete_all(self.api, self.scope, self.talk.progress)
        prune.wait_for_pod_termination(self.api, self.scope, self.talk.progress)
        if data:
            gone += self._remove_data()
        if commit is not None:
            self.bring.note(commit, "succeeded")
        return commit, gone

    def _remove_data(self) -> list[Reference]:
        """Remove for good what `down` leaves: the volumes of the databases, the secrets that were
        made up, and the namespace, if it is ours and nothing of others is in it."""
        api, scope = self.api, self.scope
        gone = []
        volumes = api.list("v1", "PersistentVolumeClaim", scope.namespace, self._instance)
        made = api.list("v1", "Secret", scope.namespace, f"{scope.selector},{applyset.KEEP}=true")
        for thing in (*volumes, *made):
            if api.delete(Reference.of(thing), uid=thing["metadata"]["uid"]):
                gone.append(Reference.of(thing))
        space = api.get(Reference("v1", "Namespace", "", scope.namespace))
        is_ours = space and scope.manages(space)
        if space and is_ours and not prune.has_unmanaged_objects(api, scope):
            api.delete(Reference.of(space))
            gone.append(Reference.of(space))
        return gone

    @property
    def _instance(self) -> str:
        return f"{INSTANCE}={self.scope.stack}"

    def _history(self, limit: int) -> list[history.Entry]:
        return history.history(
            self.repository, self.where.stack, self.where.environment, limit, followed=True
        )

    def _restore(self, document: Document, expected: str) -> Result:
        assert document.deployment.restores is not None
        present = self.repository.understood(self.where.stack, self.where.environment)
        files = self.repository.manifests(
            self.where.stack, self.where.environment, document.deployment.restores
        )
        self.bring.examine(document, files)
        commit = self.repository.commit(document, expected=expected, files=files)
        applied = self.bring.apply(commit, document, files, [])
        return Result(commit, document, diff.diff(document, present), applied)

    def _images(self, loaded: LoadedStack, wish: Wish) -> dict[str, str]:
        """The images that were asked for; and for services that name none, those that they had
        when they last ran (`down` is no reason to forget them)."""
        images = dict(wish.images)
        lacking = [n for n, s in loaded.stack.services.items() if not s.image and n not in images]
        if not lacking:
            return images
        for entry in self._history(50):
            document = self.repository.read(self.where.stack, self.where.environment, entry.commit)
            if document is not None and document.services:
                kept = {n: s.image for n, s in document.services.items() if s.image}
                return {**{n: kept[n] for n in lacking if n in kept}, **images}
        return images

    def _tell_untested(self, target: Target) -> None:
        """Say which words of the file nothing here can keep."""
        if target.has_rollouts:
            return
        names = [n for n, s in target.services.items() if s.rollout.smoke or s.rollout.hold]
        if names:
            self.talk.say(
                f"{', '.join(names)}: smoke tests and `hold` need Argo Rollouts and `rollouts: "
                "true`; without them a Deployment is updated pod by pod, as its health allows."
            )

    def _secrets(self, target: Target, files: Mapping[str, bytes]) -> SecretPlan:
        """What is to become of each Secret, by what is set here and what the cluster has; `files`
        are the manifests that refer to them."""
        wanted = needed.required(target)
        given = SecretStore(self.settings.secrets).current(self.where.stack, self.where.environment)
        live: dict[str, Object] = {}
        certificate = secrets.reference(self.scope, EDGE_CERTIFICATE).name
        gateway = target.environment.gateway
        is_signed = any(certificate.encode() in data for data in files.values())
        if gateway is not None and gateway.issuer:
            is_signed = False  # cert-manager makes it.
        parts = [w.part for w in wanted]
        for part in (*parts, *([EDGE_CERTIFICATE] if is_signed else ())):
            reference = secrets.reference(self.scope, part)
            found = self.api.get(reference)
            if found is not None:
                live[reference.name] = found
        choice = secrets.plan_secrets(self.scope, wanted, given, live)
        if is_signed and certificate not in live:
            host = target.environment.domain or "localhost"
            choice.generated.append(GeneratedSecret(certificate, {}, host=host))
        return choice


def _check_hold(target: Target, hold: bool) -> None:
    """Raises UsageError if a hold is asked for where nothing can hold."""
    if hold and not target.has_rollouts:
        raise UsageError(
            f"Nothing can hold a deployment in {target.loaded.environment!r}: it has no Argo "
            "Rollouts, and a Deployment is updated pod by pod.",
            hint="Install Argo Rollouts in the cluster and add `rollouts: true` to the "
            "environment. Nothing was changed.",
        )


def refuse_offline(loaded: LoadedStack, before: Document, after: Document) -> None:
    """An old version must not meet a newer schema. Raises UsageError where it could."""
    for name, old, new in manifests.offline_changes(loaded, before, after):
        raise UsageError(
            f"{name} {old.release} may have migrated its database; {new.release} must not meet "
            "a newer schema.",
            hint="Restore the backup from before the upgrade, then `lapwing deploy --image "
            f"{name}={new.image} --allow-downtime`. Nothing was changed.",
        )
