"""Acts on what is deployed: promote, abort, roll back, stop. Pure but for reading the history.

Each returns the document to commit and the commit that it is based on.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from lapwing.desired.history import Entry, history
from lapwing.desired.repository import DesiredRepository
from lapwing.errors import UsageError
from lapwing.observed.status import Status
from lapwing.plan.model import Deployment, DeploymentKind, Document


@dataclass(frozen=True, slots=True)
class Change:
    """A document to commit, and the commit it follows."""

    document: Document
    expected: str


def promote(
    repository: DesiredRepository, status: Status | None, where: Where, actor: str
) -> Change:
    """Let a held deployment go on. Raises UsageError if none is in flight."""
    head, document = _head(repository, where)
    if status is None or status.rollout is None:
        raise UsageError(
            "There is no deployment in flight to promote.",
            hint="`lapwing deploy --hold` makes one that waits.",
        )
    return Change(with_act(document, "promote", actor), head)


def abort(repository: DesiredRepository, status: Status | None, where: Where, actor: str) -> Change:
    """Stop the deployment in flight: want again what ran before. Raises UsageError if there is
    none."""
    head, _ = _head(repository, where)
    if status is None or status.rollout is None:
        raise UsageError(
            "There is no deployment in flight to abort.",
            hint="`lapwing rollback` goes back from one that has succeeded.",
        )
    running = status.commit
    before = repository.read(where.stack, where.environment, running) if running else None
    document = before or _empty(where)
    reason = f"{actor} aborted it"
    return Change(with_act(document, "abort", actor, restores=running, reason=reason), head)


def rollback(
    repository: DesiredRepository,
    where: Where,
    actor: str,
    *,
    services: tuple[str, ...] = (),
    release: str | None = None,
    any_outcome: bool = False,
) -> Change:
    """Go back: to the last other deployment that succeeded, for all services or for some; or, for
    one service, to a named release. With `any_outcome`, to the last other one, where nobody notes
    what becomes of a commit. Raises UsageError if there is nothing to go back to."""
    head, present = _head(repository, where)
    entries = history(repository, where.stack, where.environment, limit=200)
    unknown = [s for s in services if s not in present.services]
    if unknown:
        raise UsageError(
            f"There is no service {unknown[0]!r} in {where}.",
            hint="Its services are " + ", ".join(sorted(present.services)) + ".",
        )
    for entry in entries:
        succeeded = any_outcome or entry.outcome == "succeeded"
        if not succeeded or entry.commit == head:
            continue
        target = repository.read(where.stack, where.environment, entry.commit)
        if target is None or not target.services:
            continue
        document = _take(present, target, services)
        if release is not None and not _has(document, release):
            continue
        if document.services != present.services or _files_differ(repository, where, entry, head):
            return Change(with_act(document, "rollback", actor, restores=entry.commit), head)
    if release is not None:
        raise UsageError(
            f"No deployment that succeeded had release {release}.",
            hint="`lapwing history` lists them.",
        )
    raise UsageError(
        f"There is no earlier deployment of {where} to go back to.",
        hint="`lapwing history` lists what there is.",
    )


def down(repository: DesiredRepository, where: Where, actor: str) -> Change:
    """Want nothing to run. Data of resources stays. Raises UsageError if nothing is deployed."""
    head, document = _head(repository, where)
    if not document.services:
        raise UsageError(f"Nothing runs in {where}.", hint="`lapwing up` starts it.")
    empty = msgspec.structs.replace(document, services={}, resources={})
    return Change(with_act(empty, "down", actor), head)


@dataclass(frozen=True, slots=True)
class Where:
    """An environment of a stack."""

    stack: str
    environment: str

    def __str__(self) -> str:
        return f"{self.stack}/{self.environment}"


def _head(repository: DesiredRepository, where: Where) -> tuple[str, Document]:
    head = repository.newest(where.stack, where.environment)
    document = repository.understood(where.stack, where.environment)
    if head is None or document is None:
        raise UsageError(f"{where} has never been deployed.", hint="`lapwing up` deploys it.")
    return head, document


def _files_differ(repository: DesiredRepository, where: Where, entry: Entry, head: str) -> bool:
    """Whether the manifests were others: settings that the document does not tell."""
    trees = [repository.tree(where.stack, where.environment, c) for c in (entry.commit, head)]
    return trees[0] != trees[1]


def _take(present: Document, target: Document, services: tuple[str, ...]) -> Document:
    """The present document with some services (or all) as the target has them."""
    if not services:
        return msgspec.structs.replace(
            present, services=target.services, resources=target.resources
        )
    merged = dict(present.services)
    for name in services:
        if name in target.services:
            merged[name] = target.services[name]
    resources = target.resources | present.resources
    return msgspec.structs.replace(present, services=merged, resources=resources)


def _has(document: Document, release: str) -> bool:
    return any(s.release == release for s in document.services.values())


def with_act(
    document: Document,
    kind: DeploymentKind,
    actor: str,
    *,
    restores: str | None = None,
    reason: str | None = None,
) -> Document:
    """The document as an act of somebody."""
    act = Deployment(
        kind=kind,
        actor=actor,
        revision=document.deployment.revision,
        restores=restores,
        reason=reason,
    )
    return msgspec.structs.replace(document, deployment=act)


def _empty(where: Where) -> Document:
    act = Deployment(kind="abort", actor="")
    return Document(stack=where.stack, environment=where.environment, deployment=act)
