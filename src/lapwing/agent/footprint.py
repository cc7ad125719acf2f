"""What processes use: CPU and memory of each session, from /proc.

A replica is the leader of a session (`processes.spawn`), and what it starts stays in it: workers, a
shell and its program. So a replica's footprint is its session's, found by asking the kernel for the
session of each process. Time of children that have ended is in their parent's account, so it is not
lost.

Memory is what the session would need alone: what each process has for itself, and what they share
counted once (the most that one of them shares). The sum of resident sizes would count a forked
worker's half twice. To find out, the kernel walks every page (20 ms for 700 MiB), so memory is
asked for less often than CPU.

Sources: proc_pid_stat(5), proc_pid_smaps(5).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
_TIMES, _RESIDENT = slice(11, 15), 21
"""Fields of `stat` behind the name: user and system time (also of ended children), pages."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a session has used: CPU seconds since it began, and bytes of memory now."""

    cpu: float
    memory: int


def footprints(leaders: Iterable[int], *, memory: bool = True) -> dict[int, Footprint]:
    """The footprint of each session that still has processes, by the process id of its leader;
    without `memory`, that is 0. Empty where there is no /proc."""
    wanted = set(leaders)
    members: dict[int, list[int]] = {}
    for pid in _processes() if wanted else ():
        with contextlib.suppress(OSError):
            session = os.getsid(pid)
            if session in wanted:
                members.setdefault(session, []).append(pid)
    return {leader: _footprint(pids, memory) for leader, pids in members.items()}


def _processes() -> Iterable[int]:
    try:
        with os.scandir("/proc") as entries:
            return [int(entry.name) for entry in entries if entry.name.isdecimal()]
    except OSError:
        return ()


def _footprint(pids: Iterable[int], memory: bool) -> Footprint:
    ticks, own, shared = 0, 0, 0
    for pid in pids:
        with contextlib.suppress(OSError):
            stat = _read(f"/proc/{pid}/stat")
            fields = stat[stat.rindex(b")") + 2 :].split()
            ticks += sum(map(int, fields[_TIMES]))
            if memory:
                private, common = _memory(pid) or (0, int(fields[_RESIDENT]) * PAGE)
                own, shared = own + private, max(shared, common)
    return Footprint(ticks / TICKS, own + shared)


def _memory(pid: int) -> tuple[int, int] | None:
    """Bytes that a process has for itself, and bytes that it shares with any other; None where the
    kernel does not tell."""
    try:
        lines = _read(f"/proc/{pid}/smaps_rollup").splitlines()
    except OSError:
        return None
    sizes = {name: rest.split() for name, _, rest in (line.partition(b":") for line in lines)}

    def size(kind: bytes) -> int:
        return sum(int(sizes[kind + part][0]) * 1024 for part in (b"_Clean", b"_Dirty"))

    try:
        return size(b"Private"), size(b"Shared")
    except (KeyError, IndexError, ValueError):
        return None


def _read(path: str) -> bytes:
    """A small file of /proc in one read, without the price of a Path and a buffer."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 16384)
    finally:
        os.close(descriptor)
