"""The control groups (cgroups) of processes, and the limits of memory that are in effect there.

Sources: cgroups(7); docs.kernel.org, Control Group v2, "memory.max"; Memory Resource Controller
(version 1), "memory.limit_in_bytes".
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

LIMITS = ("memory.max", "memory.limit_in_bytes")
"""Files of a control group in version 2 and 1."""


def paths(pid: int | str) -> dict[str, str]:
    """Return the path of a process's group in each hierarchy, by its controllers."""
    try:
        text = Path(f"/proc/{pid}/cgroup").read_text(errors="replace")
    except OSError:
        return {}
    lines = (line.split(":", 2) for line in text.splitlines())
    return {controllers: path for _, controllers, path in lines}


def locate(controller: str, found: dict[str, str]) -> tuple[Path, Path] | None:
    """Return a group and the mount point of its hierarchy; None if it is not mounted.

    An empty `controller` means version 2; `found` are the paths of the group (see `paths`).
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        root, mount = fields.split()[3:5]
        kind, _, options = rest.split(" ", 2)
        if kind != ("cgroup" if controller else "cgroup2") or controller not in found:
            continue
        if controller and controller not in options.split(","):
            continue
        with contextlib.suppress(ValueError):
            inside = PurePosixPath(found[controller]).relative_to(root)
            if ".." not in inside.parts:
                return Path(mount) / inside, Path(mount)
    return None


def memory_groups(pid: int) -> list[Path]:
    """Return the groups of a process that may account for its memory, the innermost first."""
    found = paths(pid)
    for controller in ("memory", ""):
        located = locate(controller, found)
        if located is not None:
            group, mount = located
            return [group, *(p for p in group.parents if p.is_relative_to(mount))]
    return []


def memory_limit(groups: Iterable[Path]) -> str:
    """Describe the lowest limit of these groups; without one, the memory of this machine."""
    limit, group = lowest_limit(groups)
    if group is None:
        return f"this machine has {mebibytes(limit)}"
    return f"the limit of control group {group} is {mebibytes(limit)}"


def lowest_limit(groups: Iterable[Path]) -> tuple[int, Path | None]:
    """Return the lowest limit of these groups in bytes, with its group.

    Without one that is lower, it is the memory of this machine, without a group.
    """
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    files = (group / name for group in groups for name in LIMITS)
    known = [(limit, file.parent) for file in files if (limit := _number(file)) is not None]
    limit, group = min(known, default=(machine, None))
    return (limit, group) if limit < machine else (machine, None)


def mebibytes(count: int) -> str:
    """Format a number of bytes as in the stack file: `512Mi`."""
    return f"{count // 2**20}Mi"


def _number(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):  # "max" means no limit.
        return int(file.read_text())
    return None
