"""What promote, abort, rollback and down commit: documents made from the history.

Nothing is changed here. A `PlannedChange` is committed by `commit` once `guards.check` has
approved it; the type checker keeps every target to that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec
from msgspec import UnsetType

from lapwing.desired.history import Entry, history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import StateError, UsageError, check_name, did_you_mean
from lapwing.observed.status import Status
from lapwing.plan.diff import Change, diff
from lapwing.plan.model import Deployment, DeploymentKind, Document, Maintenance
from lapwing.targets.base import EnvironmentRef, never_deployed


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """A document to commit on top of `expected`; `before` is the document there.

    `files` are manifests by their path below the stack's folder; None where there are none.
    """

    document: Document
    expected: str | None
    before: Document | None = None
    files: Mapping[str, bytes] | None = None

    @property
    def changes(self) -> list[Change]:
        """What the commit changes. On a machine, only deployments run jobs once."""
        changes, kind = diff(self.document, self.before), self.document.deployment.kind
        if self.document.target != "machine" or kind not in ("rollback", "abort", "restore"):
            return changes
        known = (self.before.services if self.before else {}) | self.document.services
        jobs = {name for name, service in known.items() if service.runs_once}
        return [c for c in changes if c.kind != "service" or c.name not in jobs]


def promote(
    repository: DesiredRepository, status: Status | None, ref: EnvironmentRef, actor: str
) -> PlannedChange:
    """Plan the continuation of a paused deployment; `before` is what runs until then.

    Raises StateError if there is no deployment in progress.
    """
    head, present = _head(repository, ref)
    if status is None or status.rollout is None:
        raise nothing_in_progress("promote", ref)
    document = as_deployment(present, "promote", actor)
    running = (
        repository.read(ref.stack, ref.environment, status.commit) if status.commit else present
    )
    return PlannedChange(document, head, running, _files(repository, present, head))


def abort(
    repository: DesiredRepository, status: Status | None, ref: EnvironmentRef, actor: str
) -> PlannedChange:
    """Plan the return to what ran before the deployment in progress.

    Raises StateError if there is no deployment in progress.
    """
    head, present = _head(repository, ref)
    if status is None or status.rollout is None:
        raise nothing_in_progress("abort", ref)
    running = status.commit
    before = repository.read(ref.stack, ref.environment, running) if running else None
    document = before or Document(
        stack=ref.stack, environment=ref.environment, deployment=present.deployment
    )
    document = msgspec.structs.replace(document, maintenance=present.maintenance)
    return PlannedChange(aborted(document, actor, running), head, present)


def restore(
    repository: DesiredRepository, ref: EnvironmentRef, actor: str, commit: str
) -> PlannedChange:
    """Plan the return to an earlier deployment as the outcome of an abort."""
    head, present = _head(repository, ref)
    document = repository.read(ref.stack, ref.environment, commit)
    assert document is not None
    files = _files(repository, document, commit)
    return PlannedChange(aborted(document, actor, commit), head, present, files)


def present(repository: DesiredRepository, ref: EnvironmentRef) -> PlannedChange:
    """Return the present deployment as a plan that changes nothing."""
    head, document = _head(repository, ref)
    return PlannedChange(document, head, document, _files(repository, document, head))


def aborted(document: Document, actor: str, restores: str | None) -> Document:
    """Return a document as the outcome of an abort."""
    return as_deployment(document, "abort", actor, restores=restores, reason=f"aborted by {actor}")


def rollback(
    repository: DesiredRepository,
    ref: EnvironmentRef,
    actor: str,
    *,
    services: tuple[str, ...] = (),
    release: str | None = None,
    any_outcome: bool = False,
) -> PlannedChange:
    """Plan the return to the last different deployment that succeeded.

    With `services`, only those are restored; `release` names the release to restore, or a commit by
    its first 7 or more digits. With `any_outcome`, deployments without a recorded outcome count as
    well. Raises UsageError if there is no such deployment.
    """
    head, present = _head(repository, ref)
    for name in services:
        check_name("service", name, present.services, ref)
    entries = history(repository, ref.stack, ref.environment, limit=200)
    commit = None
    hint = f"Run `lapwing history -e {ref.environment}` to list the deployments."
    if release is not None and (named := _with_commit(entries, release)) is not None:
        commit = f"Deployment {named.commit[:12]} of {ref}"
        if not (any_outcome or named.outcome == "succeeded"):
            raise UsageError(f"{commit} did not succeed (outcome: {named.outcome}).", hint=hint)
        if named.commit == head:
            raise UsageError(f"{commit} is the current deployment.", hint=hint)
        entries, release = [named], None
    for entry in entries:
        if entry.commit == head or not (any_outcome or entry.outcome == "succeeded"):
            continue
        earlier = repository.read(ref.stack, ref.environment, entry.commit)
        if earlier is None or all(s.runs_once for s in earlier.services.values()):
            continue
        document = _restore(present, earlier, services)
        if release is not None and all(s.release != release for s in document.services.values()):
            continue
        if document.services != present.services or _files_differ(repository, ref, entry, head):
            document = as_deployment(document, "rollback", actor, restores=entry.commit)
            return PlannedChange(
                document, head, present, _files(repository, document, entry.commit)
            )
    if release is not None:
        raise UsageError(
            f"No successful deployment of {ref} had release {release}.",
            hint=did_you_mean(release, {s.release for e in entries for s in e.services.values()})
            or hint,
        )
    if commit is not None:
        raise UsageError(
            f"{commit} cannot be restored: it has no services, or the same as the current "
            "deployment.",
            hint=hint,
        )
    eligible = [
        e for e in entries if e.commit != head and (any_outcome or e.outcome == "succeeded")
    ]
    raise _nothing_to_restore(ref, services, eligible, hint)


def _nothing_to_restore(
    ref: EnvironmentRef, services: tuple[str, ...], earlier: list[Entry], hint: str
) -> StateError:
    """Return the error for a rollback if no earlier deployment has another release."""
    if not any(entry.services for entry in earlier):
        return StateError(f"There is no earlier deployment of {ref} to roll back to.", hint=hint)
    if services:
        same = ", ".join(services)
        return StateError(
            f"All earlier deployments of {ref} have the current release of {same}.", hint=hint
        )
    return StateError(
        f"All earlier deployments of {ref} have the current release.",
        hint="Only settings of the environment changed, such as `access`, which a rollback keeps. "
        f"Change them in the stack file, and run `lapwing deploy -e {ref.environment}`.",
    )


def _with_commit(entries: list[Entry], prefix: str) -> Entry | None:
    if not re.fullmatch("[0-9a-f]{7,40}", prefix):
        return None
    return next((e for e in entries if e.commit.startswith(prefix)), None)


def down(repository: DesiredRepository, ref: EnvironmentRef, actor: str) -> PlannedChange:
    """Plan that nothing runs; data of resources stays. Raises StateError if nothing is deployed."""
    head, present = _head(repository, ref)
    if not (present.services or present.resources):
        raise StateError(
            f"{ref} is not running.", hint=f"Run `lapwing up -e {ref.environment}` to start it."
        )
    empty = msgspec.structs.replace(present, services={}, resources={})
    files: dict[str, bytes] | None = {} if present.target == "kubernetes" else None
    return PlannedChange(as_deployment(empty, "down", actor), head, present, files)


def stop(
    repository: DesiredRepository,
    ref: EnvironmentRef,
    actor: str,
    kind: DeploymentKind,
    what: str,
    page: Maintenance,
) -> PlannedChange:
    """Plan that nothing runs and clients get a page, for a restore or a migration."""
    head, present = _head(repository, ref)
    empty = msgspec.structs.replace(present, services={}, resources={})
    document = as_deployment(empty, kind, actor, reason=what)
    document = msgspec.structs.replace(
        document,
        maintenance=present.maintenance or msgspec.structs.replace(page, restoring=True),
    )
    return PlannedChange(document, head, present)


def start_after_restore(
    repository: DesiredRepository,
    ref: EnvironmentRef,
    actor: str,
    what: str,
    commit: str,
    restored: str | None,
) -> PlannedChange:
    """Plan the start of a deployment that was stopped for a restore of the part `restored`."""
    head, present = _head(repository, ref)
    stopped = repository.read(ref.stack, ref.environment, commit)
    assert stopped is not None
    document = as_deployment(_restore(present, stopped, ()), "restore", actor, reason=what)
    deployment = msgspec.structs.replace(document.deployment, restores=commit, restored=restored)
    return PlannedChange(msgspec.structs.replace(document, deployment=deployment), head, present)


def maintenance(
    repository: DesiredRepository, ref: EnvironmentRef, actor: str, wanted: Maintenance | UnsetType
) -> PlannedChange:
    """Plan the start or end of maintenance.

    Maintenance in progress with the same page is kept, and so is the page of its message.
    """
    head, present = _head(repository, ref)
    before = present.lasting_maintenance
    if wanted and before and before.has_message and not wanted.has_message:
        wanted = msgspec.structs.replace(wanted, page=before.page, has_message=True)
    if wanted and before and (before.page, before.retry_after) == (wanted.page, wanted.retry_after):
        wanted = before
    document = msgspec.structs.replace(present, maintenance=wanted)
    return PlannedChange(as_deployment(document, "maintenance", actor), head, present)


def as_deployment(
    document: Document,
    kind: DeploymentKind,
    actor: str,
    *,
    restores: str | None = None,
    reason: str | None = None,
) -> Document:
    """Return a document as a deployment of `kind`."""
    deployment = Deployment(
        kind=kind,
        actor=actor,
        revision=document.deployment.revision,
        restores=restores,
        reason=reason,
    )
    return msgspec.structs.replace(
        document, deployment=deployment, maintenance=document.lasting_maintenance
    )


def nothing_in_progress(verb: str, ref: EnvironmentRef) -> StateError:
    """Return the error for `promote` or `abort` without a deployment in progress."""
    hint = f"Run `lapwing deploy -e {ref.environment} --hold` to create a paused deployment."
    if verb == "abort":
        hint = f"Run `lapwing rollback -e {ref.environment}` to undo a deployment that succeeded."
    return StateError(f"There is no deployment in progress to {verb}.", hint=hint)


def _head(repository: DesiredRepository, ref: EnvironmentRef) -> tuple[str, Document]:
    head = repository.newest(ref.stack, ref.environment)
    document = repository.latest_valid(ref.stack, ref.environment)
    if head is None or document is None:
        raise never_deployed(ref)
    return head, document


def _files(
    repository: DesiredRepository, document: Document, commit: str
) -> dict[str, bytes] | None:
    if document.target == "machine":
        return None
    return repository.manifests(document.stack, document.environment, commit)


def _files_differ(
    repository: DesiredRepository, ref: EnvironmentRef, entry: Entry, head: str
) -> bool:
    """Return whether the manifests differ: some settings are in no document."""
    trees = [repository.manifests_tree(ref.stack, ref.environment, c) for c in (entry.commit, head)]
    return trees[0] != trees[1]


def _restore(present: Document, earlier: Document, services: tuple[str, ...]) -> Document:
    """Return the present document with some services (or all) of an earlier one.

    Their `access` is kept: to return to an older release does not open it to more clients.
    """
    restored = {
        name: service
        if name not in present.services
        else msgspec.structs.replace(service, access=present.services[name].access)
        for name, service in earlier.services.items()
        if not services or name in services
    }
    if not services:
        return msgspec.structs.replace(present, services=restored, resources=earlier.resources)
    return msgspec.structs.replace(
        present,
        services=present.services | restored,
        resources=earlier.resources | present.resources,
    )
