"""How many processes the kernel has killed because memory ran out (OOM).

Sources: docs.kernel.org, Control Group v2, "memory.events"; Memory Resource Controller (version 1),
"oom_control"; proc_vmstat(5), "oom_kill"; proc_pid_oom_score_adj(5).
"""

from __future__ import annotations

import contextlib
from pathlib import Path

MACHINE = Path("/proc/vmstat")


def oom_kills(file: Path = MACHINE) -> int | None:
    """Return the count of the machine, or in a file of a control group; None if there is none."""
    with contextlib.suppress(OSError, ValueError):
        lines = (line.split() for line in file.read_text().splitlines())
        return next((int(words[1]) for words in lines if words[0] == "oom_kill"), None)
    return None
