"""Log files of replicas: where they are, their last lines, and how they stay bounded.

A replica writes to its file itself, so the agent's death breaks no pipe. A file that has grown
past the limit is copied to `<name>.1` and emptied in place; replicas append, so they go on at the
new end. A few lines written between the copy and the cut can be lost: the price of needing nobody
in between.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

LIMIT = 20 * 1024 * 1024
"""Bytes after which a log is rotated."""


def folder(logs: Path, stack: str, environment: str, service: str) -> Path:
    """Where the logs of one service are."""
    return logs / "run" / stack / environment / service


def tail(path: Path, lines: int = 20) -> str:
    """The last lines of a log, at most 64 KiB; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 65536))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def rotate(path: Path, limit: int = LIMIT) -> bool:
    """Rotate a log that has grown past `limit` bytes; whether it did."""
    try:
        if path.stat().st_size <= limit:
            return False
        shutil.copyfile(path, path.with_name(path.name + ".1"))
        path.with_name(path.name + ".1").chmod(0o600)
        os.truncate(path, 0)
    except OSError:
        return False
    return True


def forget(directory: Path, keep: int = 20) -> None:
    """Remove all but the newest `keep` logs of a service."""
    files = sorted(directory.glob("*.log*"), key=_changed, reverse=True)
    for path in files[keep:]:
        path.unlink(missing_ok=True)


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
