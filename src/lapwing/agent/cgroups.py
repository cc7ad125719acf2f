"""Control groups (cgroups): one for each replica, in which all of its processes are found again.

A process can begin another session and clear its environment, but it stays in the group that its
replica entered before its program was executed. A group is named after its owner, below the group
of the agent:

    <agent's group>/lapwing-<hash of LAPWING_HOME>/<stack>:<environment>:<service>:<label>:<index>

No controller is enabled in it: limits of the agent's own group (a systemd unit) stay in effect.
Where no group can be created (another user than root without delegation, a read-only file system),
a process is found by its session and its environment alone.

A group is found by the name in /proc/PID/cgroup, so it does not matter in which group the agent
that created it was running. An agent that a replica started (the console) leaves that group.

Sources: cgroups(7); docs.kernel.org, Control Group v2, "Delegation" and "cgroup.kill".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from lapwing.system.control_groups import locate, paths

_PREFIX = "lapwing-"
_OF_ANY_HOME = re.compile(rf"/{_PREFIX}[0-9a-f]{{12}}(/|$)")
_ENTER = '{ echo 0 > "$0"; } 2>/dev/null; exec "$@"'
"""Shell script that enters the group whose `cgroup.procs` is $0, if it can, and executes "$@"."""


def command(mark: str | None, arguments: tuple[str, ...]) -> tuple[str, ...]:
    """Return the arguments of a process that enters the group of its mark first.

    Without a mark, or with that of no replica, it leaves the group of a replica that started it.
    """
    owned = mark is not None and "/" in mark.rpartition("|")[2]
    group = _create(mark) if mark is not None and owned else _outer()
    if group is None:
        return arguments
    return ("/bin/sh", "-c", _ENTER, str(group / "cgroup.procs"), *arguments)


def owner(pid: int | str, home: str) -> str | None:
    """Return the owner in whose group a process is, None if it is in no group of this home."""
    for path in paths(pid).values():
        _, found, rest = path.partition(f"/{_folder(home)}/")
        if found:
            return rest.partition("/")[0].replace(":", "/")
    return None


def kill(mark: str) -> None:
    """Send SIGKILL to every process of a group at once, where the kernel can do so."""
    for folder, _ in _hierarchies():
        with contextlib.suppress(OSError):
            (folder / _name(mark) / "cgroup.kill").write_text("1")


def remove(mark: str) -> bool:
    """Remove the group of a mark; returns whether there is none any more."""
    groups = [folder / _name(mark) for folder, _ in _hierarchies()]
    for group in groups:
        _remove_empty(group)
    # A hierarchy that this user may not look into, as with systemd 257, has no group of its agent.
    return not any(os.access(group, os.F_OK) for group in groups)


def remove_all_empty(home: Path) -> None:
    """Remove the empty groups of a home, in whichever group an agent created them.

    It must not run while a replica starts.
    """
    for _, mount in _hierarchies():
        for group in [*mount.glob(f"**/{_folder(str(home))}/*/")]:
            _remove_empty(group)


def _remove_empty(group: Path) -> None:
    """Remove a group without processes, and the home's if it was the last one in it."""
    with contextlib.suppress(OSError):
        for inner in sorted(group.glob("**/"), reverse=True):  # A replica may create groups in it.
            inner.rmdir()
        group.parent.rmdir()


def _create(mark: str) -> Path | None:
    for folder, _ in _hierarchies():
        group = folder / _name(mark)
        with contextlib.suppress(OSError):
            group.mkdir(parents=True, exist_ok=True)
            return group
    return None


def _outer() -> Path | None:
    """Return the group around that of a replica in which this process is; None if it is in none."""
    if not any(map(_OF_ANY_HOME.search, paths("self").values())):
        return None
    return next((folder for folder, _ in _hierarchies()), None)


def _name(mark: str) -> PurePosixPath:
    home, _, found = mark.rpartition("|")
    return PurePosixPath(_folder(home), found.replace("/", ":"))


def _folder(home: str) -> str:
    return _PREFIX + hashlib.sha256(home.encode()).hexdigest()[:12]


def _hierarchies() -> Iterator[tuple[Path, Path]]:
    """Yield the agent's own group and the mount point of each hierarchy that can be used.

    That is version 2 first (its only line has no controllers), then `pids` of version 1.
    """
    own = {name: _OF_ANY_HOME.split(path)[0] or "/" for name, path in paths("self").items()}
    for controller in ("", "pids"):
        found = locate(controller, own)
        if found is not None:
            yield found
