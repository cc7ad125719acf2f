"""Log files of replicas: their place, their last lines, and how their size stays bounded.

A replica writes to its file itself, so the death of the agent breaks no pipe. A file that exceeds
the limit is copied to `<name>.1` and truncated; replicas append, so they continue at the new end.
Lines written between the copy and the truncation can be lost: the price of having no process in
between.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MAX_LOG_BYTES = 20 * 1024 * 1024
"""Size above which a log is rotated."""


def folder(logs: Path, stack: str, environment: str, service: str) -> Path:
    """Return the folder of a service's logs."""
    return logs / "run" / stack / environment / service


def tail(path: Path, lines: int = 20) -> str:
    """Return the last lines of a log, at most 64 KiB; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 65536))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def exceeds_limit(path: Path) -> bool:
    """Return whether a log has to be rotated."""
    try:
        return path.stat().st_size > MAX_LOG_BYTES
    except OSError:
        return False


def rotate(path: Path) -> None:
    """Rotate a log if it exceeds the limit. Copies it, so call it in a thread."""
    if not exceeds_limit(path):
        return
    rotated = path.with_name(path.name + ".1")
    try:
        shutil.copyfile(path, rotated)
        rotated.chmod(0o600)
        os.truncate(path, 0)
    except OSError:
        return  # The disk is full: the next tick tries again.


def remove_old(directory: Path, keep: int = 20) -> None:
    """Remove all but the newest `keep` logs of a service."""
    files = sorted(directory.glob("*.log*"), key=_modified, reverse=True)
    for path in files[keep:]:
        path.unlink(missing_ok=True)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
