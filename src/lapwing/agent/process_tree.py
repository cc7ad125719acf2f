"""Finds the processes that belong to a replica, or to a LAPWING_HOME.

A process belongs to the replica in whose session it is. One that began another session is found by
the mark in its environment, which children inherit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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

    These are the processes of its session, if that is `ours`, and those anywhere with its `mark`.
    """
    return await asyncio.to_thread(_find, identity, mark, ours)


def _find(identity: Identity, mark: str | None, ours: bool) -> dict[int, Member]:
    if not Path("/proc/self/stat").exists():
        only = Member(identity, 0, identity.pid, "")
        return {identity.pid: only} if ours and alive(identity) else {}
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        member = _member(int(entry.name))
        if member is None or member.identity.started < identity.started:
            continue
        if (ours and member.session == identity.pid) or (mark and _marked(entry, mark)):
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


def _marked(process: Path, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def owned(home: Path) -> Iterator[tuple[Identity, str]]:
    """Yield every running process of a LAPWING_HOME with its owner.

    It is found by the mark in its environment, so also if it was started just before a crash and
    never recorded. Reads all of /proc, so call it in a thread. Linux only: nothing elsewhere.
    """
    mark = f"{MARK}={home}|".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environ = (entry / "environ").read_bytes()
        except OSError:
            continue
        for variable in environ.split(b"\0"):
            if variable.startswith(mark):
                pid = int(entry.name)
                since = started(pid)
                if since is not None:
                    yield Identity(pid, since), variable[len(mark) :].decode(errors="replace")
