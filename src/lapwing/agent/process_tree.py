"""Finds the processes that belong to a replica, or to a LAPWING_HOME.

A process belongs to the replica in whose session it is. One that began another session is found by
the control group that it inherited, or by the mark in its environment, which it may have cleared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lapwing.agent import cgroups
from lapwing.agent.processes import MARK, Identity, alive, read_stat, started


@dataclass(frozen=True, slots=True)
class Member:
    """A process, its parent's id, its session and the name of its program."""

    identity: Identity
    parent: int
    session: int
    name: str


async def members(identity: Identity, mark: str | None, ours: bool) -> dict[int, Member]:
    """Find, in a thread, a process and what it started, by id.

    These are the processes of its session, if that is `ours`, and those anywhere in the control
    group of its `mark` or with the mark in their environment.
    """
    return await asyncio.to_thread(_find, identity, mark, ours)


def _find(identity: Identity, mark: str | None, ours: bool) -> dict[int, Member]:
    if not Path("/proc/self/stat").exists():
        only = Member(identity, 0, identity.pid, "")
        return {identity.pid: only} if ours and alive(identity) else {}
    home, _, owner = (mark or "").rpartition("|")
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        member = _member(int(entry.name))
        if member is None or member.identity.started < identity.started:
            continue
        if (ours and member.session == identity.pid) or (mark and _owner(entry, home) == owner):
            found[member.identity.pid] = member
    return found


def _member(pid: int) -> Member | None:
    found = read_stat(pid)
    if found is None:
        return None
    since = Identity(pid, found.started)
    return Member(since, found.parent, found.session, _program(pid) or found.name)


def _program(pid: int) -> str | None:
    """Return the file name of the program of a process; None if it may not be read.

    The name in `stat` is that of the script where a shell runs one by its `#!` line.
    """
    try:
        name = Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return None
    return name.removesuffix(" (deleted)")


def owned(home: Path) -> Iterator[tuple[Identity, str]]:
    """Yield every running process of a LAPWING_HOME with its owner.

    So it is found also if it was started just before a crash and never recorded. Reads all of
    /proc, so call it in a thread. Linux only: nothing elsewhere.
    """
    for entry in Path("/proc").glob("[0-9]*"):
        owner = _owner(entry, str(home))
        pid = int(entry.name)
        if owner is not None and (since := started(pid)) is not None:
            yield Identity(pid, since), owner


def _owner(process: Path, home: str) -> str | None:
    """Return the owner of a process by its control group, or by the mark in its environment."""
    found = cgroups.owner(process.name, home)
    if found is not None:
        return found
    mark = f"{MARK}={home}|".encode()
    try:
        variables = (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return None
    marks = (v[len(mark) :].decode(errors="replace") for v in variables if v.startswith(mark))
    return next(marks, None)
