"""CPU and memory of the processes of each session, from /proc.

A replica is the leader of a session (`processes.spawn`), and the processes it starts (workers, a
shell and its program) stay in it. So a replica's footprint is that of its session. CPU time of
children that exited is included in their parent's.

Memory is what the session would need alone: the private memory of each process, and shared memory
counted once (the largest share of one process). The sum of resident sizes would count pages shared
by forked workers several times. For this the kernel walks every page (20 ms for 700 MiB), so memory
is read less often than CPU.

Sources: proc_pid_stat(5), proc_pid_smaps(5), proc_meminfo(5).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass

_TIMES, _RESIDENT = slice(11, 15), 21
"""Fields of `stat` after the name: user and system time (also of exited children), pages."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """The CPU seconds that a session has used since it started, and its bytes of memory now."""

    cpu: float
    memory: int


def footprints(leaders: Iterable[int], *, memory: bool = True) -> dict[int, Footprint]:
    """Return the footprint of each session that has processes, by the process id of its leader.

    Without `memory`, that field is 0. Empty where there is no /proc. Blocks: call it in a thread.
    """
    wanted = set(leaders)
    members: dict[int, list[int]] = {}
    for pid in _processes() if wanted else ():
        with contextlib.suppress(OSError):
            session = os.getsid(pid)
            if session in wanted:
                members.setdefault(session, []).append(pid)
    return {leader: _footprint(pids, memory) for leader, pids in members.items()}


def machine_memory() -> tuple[int, int]:
    """Return the memory of the machine, and what is available without swapping, in bytes.

    Raises OSError where there is no /proc.
    """
    lines = _read("/proc/meminfo").splitlines()
    sizes = {name: rest.split() for name, _, rest in (line.partition(b":") for line in lines)}
    return int(sizes[b"MemTotal"][0]) * 1024, int(sizes[b"MemAvailable"][0]) * 1024


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
                resident = int(fields[_RESIDENT]) * os.sysconf("SC_PAGE_SIZE")
                private, common = _memory(pid) or (0, resident)
                own, shared = own + private, max(shared, common)
    return Footprint(ticks / os.sysconf("SC_CLK_TCK"), own + shared)


def _memory(pid: int) -> tuple[int, int] | None:
    """Return the private and the shared bytes of a process; None where they are unknown."""
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
    """Read a small file of /proc in one call, without the cost of a Path and a buffer."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, 16384)
    finally:
        os.close(descriptor)
