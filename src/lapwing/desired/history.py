"""History: the deployments of an environment, newest first, with what became of each."""

from __future__ import annotations

import msgspec

from lapwing.desired.message import parse_trailers
from lapwing.desired.repository import NOTES, DesiredRepository, decode_at, path_of
from lapwing.errors import DesiredStateError

IN_PROGRESS = "in-progress"
COMMITTED = "committed"
"""All that a commit says of a cluster's deployment: what became of it is told by the cluster."""


class ServiceAt(msgspec.Struct, frozen=True, kw_only=True):
    """One service as a commit wants it."""

    release: str
    revision: str


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One deployment. `time` is ISO 8601 in UTC; `outcome` is `in-progress` until one is noted, or
    `committed` for a cluster's."""

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
    followed: bool = False,
) -> list[Entry]:
    """The last `limit` deployments of an environment. Two git processes, however many there are.
    `followed` says that what becomes of a cluster's deployments is noted here.

    Raises DesiredStateError.
    """
    if repository.head() is None:
        return []
    path = path_of(stack, environment)
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
        except DesiredStateError as error:  # Put there by hand; nothing can come of it.
            document, outcome, reason = None, outcome or "failed", reason or error.message
        services = document.services if document else {}
        is_elsewhere = not followed and document is not None and document.target != "machine"
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


def open_(
    repository: DesiredRepository, stack: str, environment: str, commit: str, limit: int = 50
) -> list[str]:
    """Of a commit of an environment and the ones before it, those without an outcome, newest first.

    Raises DesiredStateError.
    """
    out = repository.git.text(
        "log", f"-{limit}", f"--notes={NOTES}", "--format=%H%x00%N%x01", commit, "--",
        path_of(stack, environment),
    )  # fmt: skip
    records = [r.strip().split("\0") for r in out.split("\1") if r.strip()]
    return [r[0] for r in records if not r[1].strip()]


def outcome(repository: DesiredRepository, commit: str) -> tuple[str, str | None] | None:
    """The outcome and the reason that are noted of a commit; None if nothing is.

    Raises DesiredStateError.
    """
    note = repository.git.text("log", "-1", f"--notes={NOTES}", "--format=%N", commit).strip()
    found, _, reason = note.partition("\n")
    return (found, reason or None) if found else None
