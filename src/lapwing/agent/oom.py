"""Whether the kernel killed a process because memory ran out (OOM).

SIGKILL may come from the kernel or from a user. Only kills by the kernel are counted: in the memory
control group of the process, and for the machine (vmstat), where the killed process may be another
one. A count is compared with that of a few seconds before, so earlier kills are not considered.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from lapwing.agent import cgroups
from lapwing.system.oom_kills import MACHINE, oom_kills

COUNTERS = ("memory.events", "memory.oom_control")
LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Files of a control group in version 2 and 1."""
EXITS = frozenset({"was killed by SIGKILL", "exited with status 137", "ended"})
"""Exits after SIGKILL: of the process, of a child of its shell, or unknown (an adopted process)."""


class KillCounter:
    """Counts the OOM kills around a process. Read every few seconds by `refresh`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._groups: list[Path] = []
        self._readings = deque[dict[Path, int]](maxlen=2)
        self.refresh()

    def refresh(self) -> None:
        """Read the current counts: of the innermost control group with one, and of the machine."""
        self._groups = cgroups.memory_groups(self._pid)
        inner = [*_files(self._groups, COUNTERS)][:1]
        found = {file: oom_kills(file) for file in [*inner, MACHINE]}
        self._readings.append({f: kills for f, kills in found.items() if kills is not None})

    def explain(self, how: str) -> str:
        """Return how a process ended; if a count increased, add that the kernel killed it."""
        file = self.increased(how)
        return describe(how, self._limit(), sure=file != MACHINE) if file is not None else how

    def increased(self, how: str) -> Path | None:
        """Return the count that increased before a process ended in this way, if one did."""
        if how not in EXITS:
            return None
        for file in self._readings[-1]:
            before = next(found[file] for found in self._readings if file in found)
            if (oom_kills(file) or 0) > before:
                return file
        return None

    def _limit(self) -> str:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        known = [(limit, file.parent) for file in _files(self._groups, LIMITS)
                 if (limit := _number(file)) is not None]  # fmt: skip
        limit, group = min(known, default=(machine, None))
        if group is None or limit >= machine:
            return f"this machine has {mebibytes(machine)}"
        return f"the limit of control group {group} is {mebibytes(limit)}"


def describe(how: str, limit: str, *, sure: bool = True) -> str:
    """Describe the exit of a process that the kernel killed, with its memory limit."""
    return f"{how} ({'' if sure else 'probably '}killed by the kernel, out of memory; {limit})"


def is_described(how: str) -> bool:
    """Return whether an exit is one that the kernel caused."""
    return "killed by the kernel, out of memory" in how


def mebibytes(count: int) -> str:
    """Format a number of bytes as in the stack file: `512Mi`."""
    return f"{count // 2**20}Mi"


def _files(groups: list[Path], names: tuple[str, str]) -> Iterator[Path]:
    return (group / name for group in groups for name in names if (group / name).exists())


def _number(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):  # No limit is "max".
        return int(file.read_text())
    return None
