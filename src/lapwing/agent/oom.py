"""Whether the kernel killed a process because memory ran out (OOM).

The kernel sends SIGKILL, as a person may. What it alone does is to count: in the memory control
group of the process, and for the machine (vmstat), where the victim may be another process. A
count is compared with the one a few seconds before, so an earlier kill explains no later exit.

Sources: docs.kernel.org, Control Group v2, "memory.events"; Memory Resource Controller (version 1),
"oom_control"; proc_vmstat(5), "oom_kill".
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from lapwing.agent import cgroups

COUNTERS = ("memory.events", "memory.oom_control")
LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Files of a control group in version 2 and 1."""
MACHINE = Path("/proc/vmstat")
EXITS = frozenset({"was killed by SIGKILL", "exited with status 137", "ended"})
"""How a process ends that was killed: itself, its child in a shell, or as no child of the agent."""


class KillCounter:
    """Counts the OOM kills around a process. Read every few seconds by `refresh`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._groups: list[Path] = []
        self._readings = deque[dict[Path, int]](maxlen=2)
        self.refresh()

    def refresh(self) -> None:
        """Read the present counts: of the innermost control group with one, and of the machine."""
        self._groups = cgroups.memory_groups(self._pid)
        inner = [*_files(self._groups, COUNTERS)][:1]
        found = {file: _kills(file) for file in [*inner, MACHINE]}
        self._readings.append({f: kills for f, kills in found.items() if kills is not None})

    def explain(self, how: str) -> str:
        """Return how a process ended, and that the kernel killed it where a count has grown."""
        if how not in EXITS:
            return how
        for file in self._readings[-1]:
            before = next(found[file] for found in self._readings if file in found)
            if (_kills(file) or 0) > before:
                return describe(how, self._limit(), sure=file != MACHINE)
        return how

    def _limit(self) -> str:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        known = [(limit, file.parent) for file in _files(self._groups, LIMITS)
                 if (limit := _number(file)) is not None]  # fmt: skip
        limit, group = min(known, default=(machine, None))
        if group is None or limit >= machine:
            return f"this machine has {mebibytes(machine)}"
        return f"the limit of control group {group} is {mebibytes(limit)}"


def describe(how: str, limit: str, *, sure: bool = True) -> str:
    """Return how a process ended that the kernel killed, with the memory that it had."""
    return f"{how} ({'' if sure else 'probably '}killed by the kernel, out of memory; {limit})"


def is_described(how: str) -> bool:
    """Return whether an exit is one that the kernel caused."""
    return "killed by the kernel, out of memory" in how


def mebibytes(count: int) -> str:
    """Return a number of bytes as the stack file has it: `512Mi`."""
    return f"{count // 2**20}Mi"


def _files(groups: list[Path], names: tuple[str, str]) -> Iterator[Path]:
    return (group / name for group in groups for name in names if (group / name).exists())


def _kills(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        lines = (line.split() for line in file.read_text().splitlines())
        return next((int(words[1]) for words in lines if words[0] == "oom_kill"), None)
    return None


def _number(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):  # No limit is "max".
        return int(file.read_text())
    return None
