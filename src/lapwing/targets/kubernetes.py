"""The target `kubernetes`: a cluster that Lapwing applies itself (kind, minikube, any kubeconfig).

    plan -> guards -> commit -> apply, wave by wave -> outcome

As on a machine, one commit of this machine's desired state is one deployment, and its outcome is
recorded. There is no agent: the command applies the commit. It may be interrupted at any moment,
because each step states what should be, and the same command continues where it was.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from lapwing.desired.history import IN_PROGRESS, Entry, history
from lapwing.desired.repository import DesiredRepository
from lapwing.desired.secrets import SecretStore
from lapwing.errors import ClusterUnreachableError, ContextError, DeploymentFailed, UsageError
from lapwing.kubernetes import apply, applyset, local_cluster, local_state, prune, rollouts, secrets
from lapwing.kubernetes.apply import ApplyResult
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.objects import Object, Reference
from lapwing.kubernetes.secrets import GeneratedSecret, SecretPlan
from lapwing.kubernetes.status import read_status
from lapwing.kubernetes.upgrade.commands import Commands
from lapwing.kubernetes.upgrade.guard import UpgradeOptions
from lapwing.plan.diff import Action, Change
from lapwing.plan.model import Deployment
from lapwing.plan.names import EDGE_CERTIFICATE, INSTANCE
from lapwing.render.kubernetes import render
from lapwing.render.kubernetes import secrets as rendered_secrets
from lapwing.render.kubernetes.target import Target as Rendered
from lapwing.stack.load import LoadedStack, StackFile
from lapwing.system.git import find_revision
from lapwing.targets import guards, manifests, planned
from lapwing.targets.applier import Applier
from lapwing.targets.base import (
    DeployRequest,
    DeployResult,
    DownRequest,
    EnvironmentRef,
    Outcome,
    RollbackRequest,
    Rollout,
    StatusReport,
    Verb,
    actor_name,
    services_of,
)
from lapwing.targets.cluster import ClusterEnvironment
from lapwing.targets.guards import CheckedChange, Rules
from lapwing.targets.planned import PlannedChange

ACTIONS: dict[str, Action] = {"create": "create", "change": "update", "remove": "delete"}
DONE_BEFORE = 50
"""Deployments that are searched for an image that a service had, or for one that succeeded."""


@dataclass(slots=True)
class Progress:
    """What a verb has done, for the result of one that ends early."""

    began: float = field(default_factory=time.monotonic)
    commit: str | None = None
    plan: PlannedChange | None = None
    applied: ApplyResult | None = None
    is_new: bool = True


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
        """Commit, apply wave by wave, and wait until everything is ready."""
        loaded = self.file.load(self.ref.environment)
        options = self._upgrade_options(request)

        def run(applier: Applier, done: Progress) -> None:
            with self.reporter.working("reading the cluster"):
                checked, generated = self._plan(loaded, request, applier)
            done.plan = checked.plan
            if request.dry_run:
                return
            for change in checked.plan.changes:
                self.reporter.say(f"  {change}")
            with self.reporter.working("deploying"):
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

        def run(applier: Applier, done: Progress) -> None:
            status = read_status(applier.api, self.scope, "")
            rollouts.promote(applier.api, self.scope)
            plan = planned.promote(self.repository, status, self.ref, self._actor)
            self._apply("promote", applier, plan, None, done)
            assert plan.expected is not None
            self.repository.note(plan.expected, "succeeded")

        return self._run_or_change_rollouts("promote", run)

    def abort(self) -> DeployResult:
        """Restore the last successful deployment.

        It replaces one that is paused, has failed or was interrupted.
        """

        def run(applier: Applier, done: Progress) -> None:
            entries = self._entries(200)
            if not entries or entries[0].outcome == "succeeded":
                raise planned.nothing_in_progress("abort")
            earlier = next((e for e in entries if e.outcome == "succeeded" and e.services), None)
            if earlier is None:
                raise UsageError(
                    "No deployment has succeeded before this one: there is nothing to restore.",
                    hint="Run `lapwing up` to continue it, or `lapwing down` to remove it.",
                )
            plan = self._restore(earlier)
            try:
                rollouts.abort(applier.api, self.scope)
            except UsageError:
                pass  # No Rollout is in progress; the objects are restored all the same.
            self.repository.note(entries[0].commit, "aborted", plan.document.deployment.reason)
            self._apply("abort", applier, plan, None, done)

        return self._run_or_change_rollouts("abort", run)

    def rollback(self, request: RollbackRequest) -> DeployResult:
        """Restore an earlier deployment with its settings and secrets.

        A rollback that was interrupted continues.
        """
        manifests.refuse_services(request.services)
        loaded = self.file.load(self.ref.environment, folders=False)

        def run(applier: Applier, done: Progress) -> None:
            newest = next(iter(self._entries(1)), None)
            if newest and (newest.outcome, newest.kind) == (IN_PROGRESS, "rollback"):
                done.commit, done.is_new = newest.commit, False
                done.plan = self._present(newest.commit)
                done.applied = applier.apply(newest.commit, done.plan)
                return
            plan = planned.rollback(self.repository, self.ref, self._actor, release=request.release)
            self._apply("rollback", applier, plan, loaded, done)

        return self._run("rollback", run)

    def down(self, request: DownRequest) -> DeployResult:
        """Remove what was applied, and wait until its pods have ended.

        Volumes and generated secrets are removed only with `volumes`.
        """
        if request.cluster:
            return self._remove_cluster()

        def run(applier: Applier, done: Progress) -> None:
            if request.volumes:
                guards.confirm_removal(
                    f"Remove the data of {self.ref}?", self.cluster.options, self.reporter
                )
            with self.reporter.working("removing"):
                self._remove(applier, request, done)

        return self._run("down", run)

    def status(self) -> StatusReport:
        """Read what the cluster runs."""
        return self.cluster.status()

    def history(self, limit: int) -> list[Entry]:
        """List the deployments of this machine's repository."""
        return self._entries(limit)

    @property
    def _actor(self) -> str:
        return actor_name(self.settings, self.file.path.parent)

    def _run_or_change_rollouts(
        self, verb: Literal["promote", "abort"], run: Callable[[Applier, Progress], None]
    ) -> DeployResult:
        """Run a verb.

        If the environment was not applied from this machine, only its Rollouts are changed.
        """
        if self.repository.newest(self.ref.stack, self.ref.environment) is not None:
            return self._run(verb, run)
        with self._changing(verb) as api:
            return self.cluster.change_rollouts(api, verb, self.name)

    def _run(
        self, verb: Verb, run: Callable[[Applier, Progress], None], *, dry_run: bool = False
    ) -> DeployResult:
        """Run a verb as the only command that changes the environment; return its result."""
        done = Progress()
        try:
            with self._changing(verb, dry_run=dry_run) as api:
                store = SecretStore(self.settings.secrets)
                applier = Applier(api, self.scope, self.repository, store, self.reporter)
                run(applier, done)
                url = self.cluster.url(api) or None
                if dry_run:
                    assert done.plan is not None
                    changes = [*done.plan.changes, *self._object_changes(applier, done.plan)]
                    result = self._result(verb, "dry-run", done, url=url)
                    return msgspec.structs.replace(result, changes=changes)
                return self._result(verb, self._outcome(done), done, url=url)
        except KeyboardInterrupt:
            hint = f"Run `lapwing {verb} -e {self.ref.environment}` to continue."
            return self._result(verb, "interrupted", done, hint=hint)
        except DeploymentFailed as error:
            if done.commit is None:
                raise
            return self._result(
                verb,
                "failed",
                done,
                reason=error.message,
                detail=error.detail,
                hint=self._failure_hint(error.hint),
            )

    @contextmanager
    def _changing(self, verb: Verb, *, dry_run: bool = False) -> Iterator[ApiClient]:
        """Yield a client for one command at a time, after a question where one is due."""
        with guards.exclusive(self.cluster.folder, self.ref), self._connect() as api:
            if not dry_run:
                self.cluster.confirm(api, verb)
                local_state.save_context(self.cluster.folder, api.access.context)
            yield api

    def _plan(
        self, loaded: LoadedStack, request: DeployRequest, applier: Applier
    ) -> tuple[CheckedChange, list[GeneratedSecret]]:
        """Plan a deployment and check everything that can be checked before a change.

        Raises UsageError, SecretError, KindMissingError or an error for unmanaged objects.
        """
        images = self._images(loaded, request)
        deployment = Deployment(
            actor=self._actor,
            revision=find_revision(loaded.folder, self.settings.environ),
            hold=request.hold,
        )
        first = manifests.plan(self.repository, loaded, request.services, images, deployment)
        images |= {n: s.image for n, s in first.document.services.items() if s.image}
        rendered = render.target(loaded, images, deployment.revision, hold=request.hold)
        rules = Rules(can_hold=rendered.has_rollouts, allows_migration=True)
        guards.check(first, request.verb, loaded, rules)
        self._report_ignored_settings(rendered)
        choice = self._choose_secrets(applier.api, rendered, first.files or {})
        secrets.check_missing(choice, self.ref.environment)
        plan = manifests.plan(
            self.repository, loaded, request.services, images, deployment, choice.versions
        )
        applier.examine(plan)
        return guards.check(plan, request.verb, loaded, rules), choice.generated

    def _commit(self, checked: CheckedChange, done: Progress) -> None:
        """Commit a plan, or continue the present commit if nothing changes."""
        done.plan = checked.plan
        if not manifests.is_unchanged(self.repository, checked.plan):
            done.commit = guards.commit(self.repository, checked)
            return
        done.commit, done.is_new = checked.plan.expected, False
        present = self.repository.understood(self.ref.stack, self.ref.environment)
        done.plan = PlannedChange(
            present or checked.plan.document, done.commit, present, checked.plan.files
        )

    def _apply(
        self,
        verb: Verb,
        applier: Applier,
        plan: PlannedChange,
        loaded: LoadedStack | None,
        done: Progress,
    ) -> None:
        """Check, commit and apply a plan made from the history."""
        done.plan = plan
        checked = guards.check(plan, verb, loaded)
        for change in plan.changes:
            self.reporter.say(f"  {change}")
        with self.reporter.working("applying"):
            applier.examine(plan)
            done.commit = guards.commit(self.repository, checked)
            done.applied = applier.apply(done.commit, plan)

    def _restore(self, entry: Entry) -> PlannedChange:
        """Plan the return to an earlier deployment after an abort."""
        stack, environment = self.ref.stack, self.ref.environment
        document = self.repository.read(stack, environment, entry.commit)
        assert document is not None
        return PlannedChange(
            planned.aborted(document, self._actor, entry.commit),
            self.repository.newest(stack, environment),
            self.repository.understood(stack, environment),
            self.repository.manifests(stack, environment, entry.commit),
        )

    def _present(self, commit: str) -> PlannedChange:
        stack, environment = self.ref.stack, self.ref.environment
        document = self.repository.understood(stack, environment)
        assert document is not None
        files = self.repository.manifests(stack, environment, commit)
        return PlannedChange(document, commit, document, files)

    def _remove(self, applier: Applier, request: DownRequest, done: Progress) -> None:
        api, scope = applier.api, self.scope
        is_applied = api.get(scope.applyset) is not None
        try:
            done.plan = planned.down(self.repository, self.ref, self._actor)
            done.commit = guards.commit(self.repository, guards.check(done.plan, "down", None))
        except UsageError:
            if not is_applied and not request.volumes:
                raise
            newest = next(iter(self._entries(1)), None)
            if newest and (newest.kind, newest.outcome) == ("down", IN_PROGRESS):
                done.commit = newest.commit  # It was interrupted.
        removed = prune.delete_all(api, scope, self.reporter.progress)
        prune.wait_for_pod_termination(api, scope, self.reporter.progress)
        if request.volumes:
            removed += self._remove_data(api)
        done.applied = ApplyResult(pruned=removed)
        if done.commit is not None:
            applier.record(done.commit, "succeeded")

    def _remove_data(self, api: ApiClient) -> list[Reference]:
        """Remove the volumes of databases, the generated secrets, and the namespace.

        The namespace stays if it has unmanaged objects.
        """
        scope = self.scope
        instance = f"{INSTANCE}={scope.stack}"
        volumes = api.list("v1", "PersistentVolumeClaim", scope.namespace, instance)
        kept = f"{scope.selector},{applyset.KEEP}=true"
        generated = api.list("v1", "Secret", scope.namespace, kept)
        removed = [
            Reference.of(thing)
            for thing in (*volumes, *generated)
            if api.delete(Reference.of(thing), uid=thing["metadata"]["uid"])
        ]
        namespace = api.get(Reference("v1", "Namespace", "", scope.namespace))
        is_ours = namespace and scope.manages(namespace)
        if namespace and is_ours and not prune.has_unmanaged_objects(api, scope):
            api.delete(Reference.of(namespace))
            removed.append(Reference.of(namespace))
        return removed

    def _remove_cluster(self) -> DeployResult:
        """Remove the local cluster with everything in it."""
        api = self.cluster.connect()
        name = api.access.context
        found = local_cluster.from_context(name)
        if found is None or not api.access.local:
            raise ContextError(
                f"Context {name!r} is not a kind or minikube cluster and is not removed.",
                hint="Run `lapwing down` without --cluster to remove the stack from it.",
            )
        done = Progress()
        with guards.exclusive(self.cluster.folder, self.ref):
            guards.confirm_removal(
                f"Remove the cluster {name} with everything in it?",
                self.cluster.options,
                self.reporter,
            )
            with self.reporter.working(f"removing {name}"):
                local_cluster.delete(found, self.settings.environ, self.reporter.progress)
            try:
                done.plan = planned.down(self.repository, self.ref, self._actor)
                checked = guards.check(done.plan, "down", None)
                done.commit = guards.commit(self.repository, checked)
                self.repository.note(done.commit, "succeeded")
            except UsageError:
                pass  # Nothing was deployed.
            local_state.forget_context(self.cluster.folder)
        result = self._result("down", "succeeded", done)
        return msgspec.structs.replace(result, rollout=Rollout(removed=[f"Cluster {name}"]))

    def _connect(self) -> ApiClient:
        """Return the client of a cluster that answers; the cluster is created on request."""
        if self.cluster.options.create:
            self._create()
        api = self.cluster.connect()
        api.version()
        return api

    def _create(self) -> None:
        """Create the local cluster unless it answers, and use its context from now on."""
        environ = self.settings.environ
        wanted = local_cluster.choose(
            self.cluster.options.context or local_state.read_context(self.cluster.folder),
            self.ref.stack,
            self.ref.environment,
            local_cluster.installed_tools(environ),
        )
        try:
            with self.cluster.connect(wanted.context) as api:
                api.version()
        except (ContextError, ClusterUnreachableError):
            with self.reporter.working(f"creating {wanted.context}"):
                created = local_cluster.create(wanted, environ, self.reporter.progress)
            self.reporter.say(f"{'Created' if created else 'Found'} the cluster {wanted.context}.")
        self.cluster = self.cluster.at(wanted.context)

    def _entries(self, limit: int) -> list[Entry]:
        stack, environment = self.ref.stack, self.ref.environment
        return history(self.repository, stack, environment, limit, followed=True)

    def _upgrade_options(self, request: DeployRequest) -> UpgradeOptions:
        """Return the options of an upgrade with downtime.

        Raises UsageError for a backup without a restore.
        """
        commands = None
        if request.backup or request.restore:
            if not (request.backup and request.restore):
                raise UsageError(
                    "--backup and --restore must be given together.",
                    hint="Name the command that restores the backup as well.",
                )
            commands = Commands(request.backup, request.restore, self.settings.environ)
        holder = f"{self._actor} on {socket.gethostname()}"
        return UpgradeOptions(
            allow_downtime=request.allow_downtime, commands=commands, holder=holder
        )

    def _images(self, loaded: LoadedStack, request: DeployRequest) -> dict[str, str]:
        """Return the image of each service: the requested one, else that of the last deployment.

        `lapwing down` keeps the history, so its images are found again.
        """
        images = dict(request.images)
        missing = [n for n, s in loaded.stack.services.items() if not s.image and n not in images]
        if not missing:
            return images
        for entry in self._entries(DONE_BEFORE):
            document = self.repository.read(self.ref.stack, self.ref.environment, entry.commit)
            if document is not None and document.services:
                earlier = {n: s.image for n, s in document.services.items() if s.image}
                return {**{n: earlier[n] for n in missing if n in earlier}, **images}
        return images

    def _report_ignored_settings(self, rendered: Rendered) -> None:
        """Report settings that have no effect without Argo Rollouts."""
        if rendered.has_rollouts:
            return
        names = [n for n, s in rendered.services.items() if s.rollout.smoke or s.rollout.hold]
        if names:
            self.reporter.say(
                f"{', '.join(names)}: smoke tests and `hold` need Argo Rollouts and `rollouts: "
                "true`; without them a Deployment is updated pod by pod, as its health allows."
            )

    def _choose_secrets(
        self, api: ApiClient, rendered: Rendered, files: Mapping[str, bytes]
    ) -> SecretPlan:
        """Choose which Secrets to set, to generate, and to leave; `files` refer to them."""
        required = rendered_secrets.required(rendered)
        given = SecretStore(self.settings.secrets).current(self.ref.stack, self.ref.environment)
        certificate = secrets.reference(self.scope, EDGE_CERTIFICATE).name
        gateway = rendered.environment.gateway
        is_self_signed = any(certificate.encode() in data for data in files.values())
        if gateway is not None and gateway.issuer:
            is_self_signed = False  # cert-manager issues it.
        live: dict[str, Object] = {}
        parts = [secret.part for secret in required]
        for part in (*parts, *([EDGE_CERTIFICATE] if is_self_signed else ())):
            reference = secrets.reference(self.scope, part)
            found = api.get(reference)
            if found is not None:
                live[reference.name] = found
        choice = secrets.plan_secrets(self.scope, required, given, live)
        if is_self_signed and certificate not in live:
            host = rendered.environment.domain or "localhost"
            choice.generated.append(GeneratedSecret(certificate, {}, host=host))
        return choice

    def _object_changes(self, applier: Applier, plan: PlannedChange) -> list[Change]:
        """Return what applying would change, as the API server computes it."""
        found = apply.dry_run(applier.api, self.scope, applier.objects(plan))
        return [
            Change(kind=reference.kind, name=reference.name, action=ACTIONS[what])
            for reference, what in sorted(found.items())
            if what in ACTIONS
        ]

    def _outcome(self, done: Progress) -> Outcome:
        applied = done.applied
        assert applied is not None
        if applied.held:
            return "held"
        is_same = not done.is_new and not applied.changed and not applied.pruned
        return "unchanged" if is_same else "succeeded"

    def _result(
        self, verb: Verb, outcome: Outcome, done: Progress, **values: str | None
    ) -> DeployResult:
        applied, plan = done.applied, done.plan
        rollout = None
        if applied is not None:
            rollout = Rollout(
                services=[r.name for r in applied.held],
                applied=[str(r) for r in applied.changed],
                removed=[str(r) for r in applied.pruned],
            )
        result = DeployResult(
            stack=self.ref.stack,
            environment=self.ref.environment,
            target=self.name,
            kind=verb,
            outcome=outcome,
            commit=done.commit,
            changes=plan.changes if plan is not None else [],
            rollout=rollout,
            services=services_of(plan.document) if plan is not None else {},
            seconds=round(time.monotonic() - done.began, 3),
        )
        return msgspec.structs.replace(result, **values)

    def _failure_hint(self, hint: str | None) -> str:
        name = self.ref.environment
        more = f"What was applied stays. Correct it and run `lapwing up -e {name}` again"
        if any(e.outcome == "succeeded" and e.services for e in self._entries(DONE_BEFORE)):
            more += f", or run `lapwing rollback -e {name}`"
        return f"{hint} {more}." if hint else f"{more}."
