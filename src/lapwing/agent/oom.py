"""Whether the kernel killed a process because memory ran out (OOM).

SIGKILL may come from the kernel or from a user. Only kills by the kernel are counted: in the memory
control group of the process, and for the machine (vmstat), where the killed process may be another
one. A count is compared with that of a few seconds before, so earlier kills are not considered.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path

from lapwing.system.control_groups import memory_groups, memory_limit
from lapwing.system.oom_kills import MACHINE, innermost_counter, oom_kills

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
        self._groups = memory_groups(self._pid)
        inner = innermost_counter(self._groups)
        found = {file: oom_kills(file) for file in (inner, MACHINE) if file is not None}
        self._readings.append({f: kills for f, kills in found.items() if kills is not None})

    def explain(self, how: str) -> str:
        """Return how a process ended; if a count increased, add that the kernel killed it."""
        file = self.increased(how)
        return (
            describe(how, memory_limit(self._groups), sure=file != MACHINE)
            if file is not None
            else how
        )

    def increased(self, how: str) -> Path | None:
        """Return the count that increased before a process ended in this way, if one did."""
        if how not in EXITS:
            return None
        for file in self._readings[-1]:
            before = next(found[file] for found in self._readings if file in found)
            if (oom_kills(file) or 0) > before:
                return file
        return None


def describe(how: str, limit: str, *, sure: bool = True) -> str:
    """Describe the exit of a process that the kernel killed, with its memory limit."""
    return f"{how} ({'' if sure else 'probably '}killed by the kernel, out of memory; {limit})"


def is_described(how: str) -> bool:
    """Return whether an exit is one that the kernel caused."""
    return "killed by the kernel, out of memory" in how
