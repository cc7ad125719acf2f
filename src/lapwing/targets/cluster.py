"""An environment on a cluster, for both targets there: connection, status, paused rollouts.

A deployment that ended badly, or whose command was killed, is recorded on this machine only; the
status of the cluster is completed with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import msgspec

from lapwing.desired import history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import ClusterUnreachableError, ContextError
from lapwing.kubernetes import kubeconfig, local_state
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.status import read_status
from lapwing.observed.status import Status
from lapwing.settings import Settings
from lapwing.targets import guards
from lapwing.targets.base import (
    ClusterOptions,
    DeployResult,
    EnvironmentRef,
    Reporter,
    Rollout,
    StatusReport,
    never_deployed,
)


@dataclass(frozen=True, slots=True)
class ClusterEnvironment:
    """Where an environment is on a cluster, and how to reach it."""

    ref: EnvironmentRef
    domain: str
    settings: Settings
    options: ClusterOptions
    reporter: Reporter

    @property
    def scope(self) -> Scope:
        """Its namespace and labels."""
        stack, environment = self.ref.stack, self.ref.environment
        return Scope(stack, environment, f"{stack}-{environment}")

    @property
    def folder(self) -> Path:
        """Where this machine keeps the context and the lock of the environment."""
        return self.settings.environment(self.ref.stack, self.ref.environment)

    def connect(self, context: str | None = None) -> ApiClient:
        """Return a client of the cluster.

        The context is the given one, else the one that the environment was last applied to, else
        the current one. Raises ClusterError.
        """
        name = context or self.options.context or local_state.read_context(self.folder)
        access = kubeconfig.read(self.settings.kubeconfigs(), name)
        return ApiClient(access, self.settings.environ)

    def create(self) -> ClusterEnvironment:
        """Create the local cluster unless it responds; return the environment in its context."""
        from lapwing.kubernetes import local_cluster

        environ = self.settings.environ
        wanted = local_cluster.choose(
            self.options.context or local_state.read_context(self.folder),
            self.ref.stack,
            self.ref.environment,
            local_cluster.installed_tools(environ),
        )
        try:
            with self.connect(wanted.context) as api:
                api.version()
        except (ContextError, ClusterUnreachableError):
            with self.reporter.working(f"creating {wanted.context}"):
                created = local_cluster.create(wanted, environ, self.reporter.progress)
            self.reporter.say(f"{'Created' if created else 'Found'} the cluster {wanted.context}.")
        return replace(self, options=replace(self.options, context=wanted.context))

    def delete(self) -> str:
        """Delete the local cluster after a question; return its context.

        Raises ContextError for any other cluster.
        """
        from lapwing.kubernetes import local_cluster

        with self.connect() as api:
            access = api.access
        found = local_cluster.from_context(access.context)
        if found is None or not access.local:
            raise ContextError(
                f"Context {access.context!r} is not a kind or minikube cluster and is not removed.",
                hint=f"Run `lapwing down -e {self.ref.environment}` without --cluster to remove "
                "the stack from it.",
            )
        guards.confirm_removal(
            f"Remove the cluster {access.context} with everything in it?",
            self.options,
            self.reporter,
        )
        with self.reporter.working(f"removing {access.context}"):
            local_cluster.delete(found, self.settings.environ, self.reporter.progress)
        local_state.forget_context(self.folder)
        return access.context

    def url(self, api: ApiClient) -> str:
        """Return the URL; empty where there is none that a browser could reach."""
        return f"https://{self.domain}" if self.domain and not api.access.local else ""

    @property
    def open_hint(self) -> str:
        """The command that makes an environment without a URL reachable."""
        return f"lapwing open -e {self.ref.environment}"

    def status(self) -> StatusReport:
        """Read what the cluster runs. Raises UsageError if nothing was ever deployed."""
        from lapwing.kubernetes import restores

        with self.connect() as api:
            url = self.url(api)
            found = self._with_history(read_status(api, self.scope, url), url)
            restoring = restores.recorded(api, self.scope)
        if found is None:
            raise never_deployed(self.ref)
        if restoring is not None:
            problem = (
                f"a restore of {restoring.name} from backup {restoring.backup} is in progress or "
                f"was interrupted; run `{restoring.command(self.ref.environment)}` to complete it."
            )
            found = msgspec.structs.replace(found, problem=problem)
        return StatusReport(found, open_hint=None if url else self.open_hint)

    def change_rollouts(
        self,
        api: ApiClient,
        verb: Literal["promote", "abort"],
        target: Literal["argocd", "kubernetes"],
    ) -> DeployResult:
        """Promote or abort the rollouts in progress, without a commit.

        Raises UsageError if there are none.
        """
        from lapwing.kubernetes import rollouts

        if verb == "abort":
            guards.check_rollouts(api, self.scope)
        change = rollouts.promote if verb == "promote" else rollouts.abort
        names = [reference.name for reference in change(api, self.scope)]
        return DeployResult(
            stack=self.ref.stack,
            environment=self.ref.environment,
            target=target,
            kind=verb,
            outcome="in-progress",
            rollout=Rollout(services=names),
            url=self.url(api) or None,
        )

    def confirm(self, api: ApiClient, verb: str) -> None:
        """Ask before a cluster is changed that is not local.

        Raises ContextError without a yes, StateError during a restore, which `down` checks itself.
        """
        from lapwing.kubernetes import restores

        if verb != "down":
            restores.check_none(api, self.scope)
        guards.confirm_context(api, verb, self.scope, self.options, self.reporter)

    def _with_history(self, found: Status | None, url: str) -> Status | None:
        """Complete a status with what is recorded of the newest deployment."""
        stack, environment = self.ref.stack, self.ref.environment
        repository = DesiredRepository(self.settings.desired)
        entries = history.history(repository, stack, environment, 1, with_outcomes=True)
        if not entries:
            return found
        newest = entries[0]
        if found is None:  # `lapwing down` removed everything.
            return Status(stack=stack, environment=environment, url=url)
        is_held = found.rollout is not None and found.rollout.state == "holding"
        if newest.outcome not in (history.IN_PROGRESS, "failed") or is_held:
            return found
        if newest.outcome == history.IN_PROGRESS and local_state.is_locked(self.folder):
            return found
        what = "failed" if newest.outcome == "failed" else "was interrupted"
        verb = newest.kind if newest.kind in ("down", "rollback") else "up"
        problem = (
            f"deployment {newest.commit[:12]} {what}; run `lapwing {verb} -e {environment}` to "
            "continue."
        )
        return msgspec.structs.replace(found, problem=problem)
