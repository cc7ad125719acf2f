"""Log files of processes: their place, their last lines, and how their size stays bounded.

A process writes into a pipe. At its other end a shell with `dd` writes the file, and renames it to
`<name>.1` when it reaches the limit. So no log can exceed two times the limit, whether an agent is
running or not, and a full disk costs log lines only. This writer is in a separate session and ends
at the end of the pipe, when the process and its children have ended. It costs less than 1 MB of
memory, where Python would cost 8, and needs POSIX only.

A write to a pipe that nothing reads fails, and SIGPIPE ends most programs (pipe(7)). So the process
has its end of the pipe open for reading, too: when the writer is killed, output waits in the pipe
(64 KiB) for the next one, which an agent starts (`watching`). A process waits only while the pipe
is full: without an agent, or while the disk hangs, so that the writer does not return from a write.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

from lapwing.agent import cgroups

MAX_LOG_BYTES = 20 * 1024 * 1024
"""Size above which a log is rotated."""
_WRITER = """
while :; do
    blocks=$((($2 - $(wc -c < "$1" || echo 0)) / 4096))
    if [ "$blocks" -le 0 ] && mv -f "$1" "$1.1"; then
        blocks=$(($2 / 4096))
    fi
    if [ "$blocks" -gt 0 ]; then
        report=$(dd bs=4096 "count=$blocks" 2>&1 >> "$1")
        case $?:$report in
            0:"0+0 records in"*) exit ;;  # The end of the pipe.
            0:* | 1[2-9][0-9]:*) continue ;;  # Written, or `dd` was killed.
        esac
    fi
    rm -f "$1.1"  # The disk is full, or the folder was removed.
    [ "$(dd bs=64k count=16 | wc -c)" -gt 0 ] || exit
done
"""
"""Shell script that appends its input to file $1, and rotates it before it exceeds $2 bytes. `dd`
writes what it reads at once, so a block may be smaller."""


def open_writer(path: Path) -> tuple[int, subprocess.Popen[bytes]]:
    """Open a log for a process; returns a descriptor to write to, and the process that writes.

    The file is created with mode 0600. Raises OSError.
    """
    with contextlib.suppress(OSError):  # Readers expect it before the writer has started.
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    source, descriptor = os.pipe()
    try:
        descriptor = _reopen(descriptor)
        writer = start_writer(path, source)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor, writer


def _reopen(descriptor: int) -> int:
    """Open the write end of a pipe for reading, too, where there is a /proc (proc_pid_fd(5))."""
    try:
        both = os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return descriptor
    os.close(descriptor)
    return both


def start_writer(path: Path, source: int) -> subprocess.Popen[bytes]:
    """Start a log writer, which reads from `source`; `source` is closed. Raises OSError."""
    writer = ("/bin/sh", "-c", _WRITER, "lapwing-log", str(path), str(MAX_LOG_BYTES))
    try:
        return subprocess.Popen(
            cgroups.command(None, writer),
            env={"PATH": os.defpath, "LC_ALL": "C"},
            cwd="/",
            umask=0o077,
            stdin=source,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(source)


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


def append(path: Path, text: bytes) -> None:
    """Append to a log that no process writes; a full disk costs lines only."""
    with contextlib.suppress(OSError):
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_name(path.name + ".1"))
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, text)
        finally:
            os.close(descriptor)


def remove_old(directory: Path, keep: int = 20) -> None:
    """Remove all but the newest `keep` logs of a service, each with its older part and times."""
    files = sorted(directory.glob("*.log"), key=_modified, reverse=True)
    for log in files[keep:]:
        for path in (*directory.glob(f"{log.name}.*"), log):
            path.unlink(missing_ok=True)


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
