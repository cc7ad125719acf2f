"""How many processes the kernel has killed because memory ran out (OOM).

Sources: docs.kernel.org, Control Group v2, "memory.events"; Memory Resource Controller (version 1),
"oom_control"; proc_vmstat(5), "oom_kill"; proc_pid_oom_score_adj(5).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

MACHINE = Path("/proc/vmstat")
COUNTERS = ("memory.events", "memory.oom_control")
"""Files of a control group in version 2 and 1."""


def innermost_counter(groups: Iterable[Path]) -> Path | None:
    """Return the file with the count of the first of these control groups that has one."""
    files = (group / name for group in groups for name in COUNTERS)
    return next((file for file in files if file.exists()), None)


def oom_kills(file: Path = MACHINE) -> int | None:
    """Return the count of the machine, or in a file of a control group; None if there is none."""
    with contextlib.suppress(OSError, ValueError):
        lines = (line.split() for line in file.read_text().splitlines())
        return next((int(words[1]) for words in lines if words[0] == "oom_kill"), None)
    return None
