"""History: the deployments of an environment, newest first, with their outcomes."""

from __future__ import annotations

import msgspec

from lapwing.desired.message import parse_trailers
from lapwing.desired.repository import NOTES, DesiredRepository, decode_at, document_path
from lapwing.errors import DesiredStateError

IN_PROGRESS = "in-progress"
COMMITTED = "committed"
"""The outcome of a deployment that Argo CD applies: only the cluster knows its real outcome."""


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
    """Return the last `limit` deployments of an environment, with two git processes.

    `with_outcomes`: the outcomes of deployments to a cluster are recorded here, because Lapwing
    applies them itself. Raises DesiredStateError.
    """
    if repository.head() is None:
        return []
    path = document_path(stack, environment)
    out = repository.git.text(
        "log", f"-{limit}", f"--notes={NOTES}", "--format=%H%x00%cI%x00%s%x00%B%x00%N%x01",
        "refs/heads/main", "--", path, environ={"TZ": "UTC"},
    )  # fmt: skip
    records = [r.lstrip("\n").split("\0") for r in out.split("\1") if r.strip()]
    blobs = repository.blobs([f"{r[0]}:{path}" for r in records])
    entries = []
    for (commit, time, subject, body, note), data in zip(records, blobs, strict=True):
        trailers = parse_trailers(body)
        outcome, _, reason = note.strip().partition("\n")
        try:
            document = decode_at(data, commit, path) if data is not None else None
        except DesiredStateError as error:  # Written by hand: it cannot be deployed.
            document, outcome, reason = None, outcome or "failed", reason or error.message
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


def without_outcome(
    repository: DesiredRepository, stack: str, environment: str, commit: str, limit: int = 50
) -> list[str]:
    """Return the commits without an outcome, newest first, from `commit` backwards.

    Raises DesiredStateError.
    """
    out = repository.git.text(
        "log", f"-{limit}", f"--notes={NOTES}", "--format=%H%x00%N%x01", commit, "--",
        document_path(stack, environment),
    )  # fmt: skip
    records = [r.strip().split("\0") for r in out.split("\1") if r.strip()]
    return [r[0] for r in records if not r[1].strip()]


def outcome(repository: DesiredRepository, commit: str) -> tuple[str, str | None] | None:
    """Return the recorded outcome of a commit and its reason; None if there is none.

    Raises DesiredStateError.
    """
    note = repository.git.text("log", "-1", f"--notes={NOTES}", "--format=%N", commit).strip()
    found, _, reason = note.partition("\n")
    return (found, reason or None) if found else None
