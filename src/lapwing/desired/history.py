"""History: the deployments of an environment, newest first, with their outcomes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import msgspec

from lapwing.desired.message import parse_trailers
from lapwing.desired.repository import NOTES, DesiredRepository, document_path
from lapwing.errors import DesiredStateError
from lapwing.plan.model import Document
from lapwing.system.sanitize import escape_controls

IN_PROGRESS = "in-progress"
COMMITTED = "committed"
"""The outcome of a deployment that Argo CD applies: only the cluster knows its real outcome."""
FAILURES = ("failed", "rolled-back")
"""The outcomes of a deployment that was rejected, before and after the switch."""
SEARCHED = 20
"""Commits among which the last failure is searched."""
ROLLBACK_TARGETS = 10
"""Successful deployments of each environment that stay rollback targets."""
HISTORY_LENGTH = 200
"""Commits of each environment that are searched for them, as `lapwing rollback` does."""


class ServiceAt(msgspec.Struct, frozen=True, kw_only=True):
    """The desired release of a service in a commit."""

    release: str
    revision: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment.

    `time` is ISO 8601 in UTC. `outcome` is `in-progress` until one is recorded, or `committed`
    where Argo CD applies the commit.
    """

    commit: str
    time: str
    actor: str
    message: str
    kind: str
    services: dict[str, ServiceAt]
    changed: tuple[str, ...]
    outcome: str
    reason: str | None = None
    restores: str | None = None


def history(
    repository: DesiredRepository,
    stack: str,
    environment: str,
    limit: int = 50,
    *,
    with_outcomes: bool = False,
) -> list[Entry]:
    """Return the last `limit` deployments of an environment, usually with two git processes.

    `with_outcomes`: the outcomes of deployments to a cluster are recorded here, because Lapwing
    applies them itself. Raises DesiredStateError.
    """
    count = limit
    while repository.head() is not None:
        found = _entries(repository, stack, environment, count, with_outcomes=with_outcomes)
        joined = list(_with_restores(found))
        if len(joined) >= limit or len(found) < count:
            return joined[:limit]
        count *= 2
    return []


def _entries(
    repository: DesiredRepository,
    stack: str,
    environment: str,
    count: int,
    *,
    with_outcomes: bool,
) -> list[Entry]:
    """Return an entry for each of the last `count` commits of an environment."""
    path = document_path(stack, environment)
    fields = ("%H", "%cI", "%s", "%B", "%N")
    records = _log(repository, fields, f"-{count}", "refs/heads/main", "--", path)
    documents = repository.documents(stack, environment, [r[0] for r in records])
    entries = []
    for (commit, time, subject, body, note), found in zip(records, documents, strict=True):
        trailers = parse_trailers(body)
        outcome, _, reason = note.strip().partition("\n")
        document = None
        if found is None:  # The environment was removed: what is older belonged to another one.
            break
        if isinstance(found, DesiredStateError):  # Written by hand: it cannot be deployed.
            outcome, reason = outcome or "failed", reason or found.message
        else:
            document = found
        services = document.services if document else {}
        is_elsewhere = not with_outcomes and document is not None and document.target != "machine"
        entries.append(
            Entry(
                commit=commit,
                time=time.replace("+00:00", "Z"),
                actor=trailers.get("Actor", ["unknown"])[0],
                message=subject,
                kind=trailers.get("Kind", ["deploy"])[0],
                services={
                    n: ServiceAt(release=s.release, revision=s.revision)
                    for n, s in services.items()
                },
                changed=tuple(s.partition("=")[0] for s in trailers.get("Service", [])),
                outcome=outcome or (COMMITTED if is_elsewhere else IN_PROGRESS),
                reason=reason or None,
                restores=trailers.get("Restores", [None])[0],
            )
        )
    return entries


def _with_restores(entries: list[Entry]) -> Iterator[Entry]:
    """Yield the entries, with one for the two commits of a restore: its stop and its start."""
    newer: Entry | None = None
    for entry in entries:
        if entry.kind != "restore" or entry.services:
            yield entry
        elif newer is None:
            yield msgspec.structs.replace(entry, outcome=IN_PROGRESS)
        elif newer.kind != "restore":
            yield msgspec.structs.replace(entry, outcome="aborted")
        newer = entry


def last_failure(
    repository: DesiredRepository, stack: str, environment: str, *, with_outcomes: bool = False
) -> Entry | None:
    """Return the newest deployment that failed or was rolled back, until a newer one succeeds.

    What the agent committed afterwards, to restore the release before it, is no newer deployment.
    None also if the history cannot be read.
    """
    try:
        found = history(repository, stack, environment, SEARCHED, with_outcomes=with_outcomes)
    except (DesiredStateError, OSError):  # `desired.git` may be a file.
        return None
    for entry in found:
        if entry.outcome in FAILURES:
            return entry
        by_agent = (entry.kind, entry.actor) == ("rollback", "lapwing")
        restored = entry.kind in ("revert", "maintenance", "restore") or by_agent
        if entry.outcome in ("succeeded", COMMITTED) and not restored:
            return None
    return None


def entries_to_keep(entries: list[Entry]) -> list[Entry]:
    """Return the deployments whose releases retention keeps.

    They are the newest one, those in progress, and the rollback targets.
    """
    done = [e for e in entries if e.outcome in ("succeeded", COMMITTED)]
    good = [e for e in done if e.kind != "maintenance"][:ROLLBACK_TARGETS]
    coming = [e for e in entries if e.outcome == IN_PROGRESS]
    kept = {e.commit for e in (*entries[:1], *coming, *good)}
    return [e for e in entries if e.commit in kept]


def deployed(repository: DesiredRepository, document: Document, commit: str) -> Document:
    """Return a document with the deployment that it is of.

    A commit that begins or ends maintenance has the content of an earlier one. If that was not
    deployed yet, its jobs run, and its pause and analysis apply. Raises DesiredStateError.
    """
    if document.deployment.kind != "maintenance":
        return document
    where = (document.stack, document.environment)
    earlier = list(commits(repository, *where, commit))
    for found in repository.documents(*where, earlier):
        if isinstance(found, Document) and found.deployment.kind != "maintenance":
            return msgspec.structs.replace(document, deployment=found.deployment)
    return document


def commits(
    repository: DesiredRepository, stack: str, environment: str, commit: str, limit: int = 50
) -> dict[str, bool]:
    """Return the commits from `commit` backwards, newest first, and which have an outcome.

    Raises DesiredStateError.
    """
    path = document_path(stack, environment)
    records = _log(repository, ("%H", "%N"), f"-{limit}", commit, "--", path)
    return {r[0]: bool(r[1].strip()) for r in records}


def _log(
    repository: DesiredRepository, fields: tuple[str, ...], *arguments: str
) -> list[list[str]]:
    """Return these fields of commits, without control characters, which a pushed one may contain.

    For the same reason they are separated by a random text.
    """
    separator = secrets.token_hex(16)
    template = "".join(f"{field}{separator}" for field in fields)
    out = repository.git.data(
        "log", f"--notes={NOTES}", f"--format={template}", *arguments, environ={"TZ": "UTC"}
    )
    text = escape_controls(out.decode(errors="replace"))
    values = [value.strip("\n") for value in text.split(separator)]
    size = len(fields)
    return [values[start : start + size] for start in range(0, len(values) - 1, size)]


def outcome(repository: DesiredRepository, commit: str) -> tuple[str, str | None] | None:
    """Return the recorded outcome of a commit and its reason; None if there is none.

    Raises DesiredStateError.
    """
    note = repository.git.text("log", "-1", f"--notes={NOTES}", "--format=%N", commit).strip()
    found, _, reason = note.partition("\n")
    return (found, reason or None) if found else None
