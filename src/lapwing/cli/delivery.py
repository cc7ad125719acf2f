"""`deploy` and `rollback` for a cluster that Argo CD looks after: both are a commit, nothing else.

The command commits manifests to the desired-state repository and pushes; it never talks to the
cluster. What becomes of them is told by Argo CD and by the Rollouts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from lapwing.build.source import revision as revision_of
from lapwing.cli.context import Context
from lapwing.desired.remote import Remote
from lapwing.errors import UsageError
from lapwing.plan import diff
from lapwing.plan.model import Deployment
from lapwing.targets import manifests
from lapwing.targets import planned as change
from lapwing.targets.base import actor_name
from lapwing.targets.bundles import wanted_services

if TYPE_CHECKING:
    from lapwing.cli.place import Reach, Removal, Wish
    from lapwing.desired.history import Entry
    from lapwing.desired.repository import DesiredRepository
    from lapwing.kubernetes.applyset import Scope
    from lapwing.kubernetes.client import ApiClient
    from lapwing.kubernetes.objects import Reference
    from lapwing.plan.diff import Change
    from lapwing.stack.load import LoadedStack


class ByArgo:
    """Implements `Place`."""

    def __init__(self, context: Context, environment: str, reach: Reach) -> None:
        from lapwing.cli import target

        self.context = context
        self.environment = environment
        self.reach = reach
        self.where = target.where(context, environment)

    def deploy(self, loaded: LoadedStack, wish: Wish) -> int:
        if self.reach.create:
            raise UsageError(
                f"Argo CD looks after the cluster of {self.environment}: it is not made here.",
                hint="`lapwing infra` writes what makes it.",
            )
        if wish.backup or wish.restore:
            raise UsageError(
                "Argo CD applies this environment: no command backs its database up on the way.",
                hint="Stop the service and back up by hand first; see docs/how-to/kubernetes.md.",
            )
        return deploy(
            self.context,
            loaded,
            wish.services,
            wish.images,
            hold=wish.hold,
            dry_run=wish.dry_run,
            allow_downtime=wish.allow_downtime,
        )

    def promote(self) -> int:
        from lapwing.kubernetes import rollouts

        return self._act("promote", rollouts.promote)

    def abort(self) -> int:
        from lapwing.kubernetes import rollouts

        return self._act("abort", rollouts.abort)

    def rollback(self, services: tuple[str, ...], release: str | None) -> int:
        return rollback(self.context, self._remote(), self.environment, services, release)

    def down(self, removal: Removal) -> int:
        raise UsageError(
            f"Argo CD looks after {self.where}, and would bring back what is removed.",
            hint="Delete its Application in Argo CD.",
        )

    def history(self, limit: int) -> list[Entry]:
        from lapwing.desired.history import history

        remote = self._remote()
        remote.fetch()
        return history(remote.repository, self.where.stack, self.where.environment, limit)

    def _remote(self) -> Remote:
        from lapwing.cli import target

        remote = target.remote_of(self.context, self.environment)
        if remote is None:
            raise manifests.no_repository(self.environment)
        return remote

    def _act(self, what: str, do: Callable[[ApiClient, Scope], list[Reference]]) -> int:
        from lapwing.cli import cluster

        found = cluster.scope_of(self.context, self.environment)
        assert found is not None
        return cluster.act(self.context, self.reach.cluster, found[0], what, do, yes=self.reach.yes)


def deploy(
    context: Context,
    loaded: LoadedStack,
    services: tuple[str, ...],
    images: Mapping[str, str],
    *,
    hold: bool,
    dry_run: bool,
    allow_downtime: bool = False,
) -> int:
    """Commit the manifests of an environment, with new images for the services that got one.

    Raises UsageError, DesiredStateError or ConflictError.
    """
    url = manifests.address_of(loaded)
    wanted_services(loaded, services)
    found: list[Change] = []
    deployment = Deployment(
        kind="deploy",
        actor=actor_name(context.settings, loaded.folder),
        revision=revision_of(loaded.folder, context.settings.environ),
        hold=hold,
    )

    def make(repository: DesiredRepository) -> str | None:
        made = manifests.prepare(repository, loaded, services, images, deployment)
        if not allow_downtime:
            manifests.refuse_offline(loaded, made)
        found[:] = made.changes
        return None if dry_run else manifests.commit(repository, made)

    with context.printer.working("committing"):
        commit = Remote(url, context.settings.remotes, context.settings.environ).commit(make)
    return _tell(context, loaded.environment, commit, found, dry_run=dry_run)


def rollback(
    context: Context,
    remote: Remote,
    environment: str,
    services: tuple[str, ...],
    release: str | None,
) -> int:
    """Commit what an earlier deployment had. Raises UsageError if there is none."""
    from lapwing.cli import target

    manifests.refuse_part(services)
    where = target.where(context, environment)
    actor = actor_name(context.settings, context.directory)
    found: list[Change] = []

    def make(repository: DesiredRepository) -> str | None:
        act = change.rollback(repository, where, actor, release=release, any_outcome=True)
        document, present = act.document, repository.understood(where.stack, where.environment)
        assert document.deployment.restores is not None
        files = repository.manifests(where.stack, where.environment, document.deployment.restores)
        found[:] = diff.diff(document, present)
        return repository.commit(document, expected=act.expected, files=files)

    with context.printer.working("committing"):
        commit = remote.commit(make)
    return _tell(context, environment, commit, found, dry_run=False)


def _tell(
    context: Context, environment: str, commit: str | None, found: list[Change], *, dry_run: bool
) -> int:
    printer = context.printer
    if context.for_programs:
        outcome = "dry-run" if dry_run else "committed" if commit else "unchanged"
        changes = [c.as_data for c in found]
        printer.json({"outcome": outcome, "commit": commit, "changes": changes})
        return 0
    for each in found:
        printer.say(f"  {each}")
    if commit is None:
        nothing = "Nothing would change." if dry_run and not found else "Nothing was changed."
        printer.say(nothing if not dry_run or not found else "Not committed: --dry-run.")
        return 0
    printer.data(commit)
    printer.say(f"Committed for {environment}; Argo CD brings it to the cluster.")
    return 0
