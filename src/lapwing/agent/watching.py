"""Wait for the exit of a process, and keep its log written.

A log writer (`logs`) may be killed, for example by the kernel when memory runs out. Its exit is
reported by a pidfd, and another one is started at once. Until then output waits in the pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from lapwing.agent import logs, oom, processes
from lapwing.agent.processes import Identity, RestartDelay

log = logging.getLogger(__name__)

OOM_CHECK_S = 2.0
"""The interval at which the kernel's count of OOM kills is read."""
FIRST_DELAY_S = 0.01
LONGEST_DELAY_S = 2.0
"""Delays after the exit of a log writer, or after an attempt to find the pipe of a process."""
OUTPUT = (1, 2)
"""The descriptors of a process that are its log. It may have redirected one of them."""


async def watch(identity: Identity, log_file: Path) -> str:
    """Wait for the exit of a process, and keep its log written; return how it ended."""
    killed = oom.KillCounter(identity.pid)
    async with log_kept(identity.pid, log_file):
        how = killed.explain(await ended(identity, killed))
    if oom.is_described(how):
        logs.append(log_file, f"lapwing: the process {how}\n".encode())
    return how


async def ended(identity: Identity, killed: oom.KillCounter) -> str:
    """Wait for the exit of a process, and read the kernel's counts until then; return how."""
    exited = asyncio.create_task(processes.ended(identity))
    try:
        while not (await asyncio.wait({exited}, timeout=OOM_CHECK_S))[0]:
            killed.refresh()
        return exited.result()
    finally:
        exited.cancel()


@contextlib.asynccontextmanager
async def log_kept(
    pid: int, log_file: Path, descriptors: Sequence[int] = OUTPUT
) -> AsyncIterator[None]:
    """Start another log writer for a process whenever its log writer exits."""
    task = asyncio.create_task(_keep_log(pid, log_file, descriptors))
    try:
        yield
    finally:
        task.cancel()


async def _keep_log(pid: int, log_file: Path, descriptors: Sequence[int]) -> None:
    loop, delay = asyncio.get_running_loop(), RestartDelay(FIRST_DELAY_S, LONGEST_DELAY_S)
    while True:
        began = loop.time()
        try:
            writer = await asyncio.to_thread(_find_writer, pid, log_file, descriptors)
            if writer is not None:
                await processes.exited(writer)
        except Exception:
            if processes.started(pid) is not None:
                log.exception("The log writer of process %d cannot be started; retrying.", pid)
        delay.record_run(loop.time() - began)
        await delay.wait()


def _find_writer(pid: int, log_file: Path, descriptors: Sequence[int]) -> Identity | None:
    """Return the log writer of a process, after starting one if it has none.

    None if the process has no log that is a pipe: it has exited, has redirected its output, or is
    the shell that will execute the program (`cgroups.command`). Raises OSError.
    """
    known = processes.log_writers.get(pid)
    if known is None or known.poll() is not None:
        path = _log_pipe(pid, descriptors)
        if path is None:
            return None
        reader = _reader(path.readlink())
        if reader is not None:
            return reader
        source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)  # See proc_pid_fd(5).
        known = processes.log_writers[pid] = logs.start_writer(log_file, source)
    return Identity(known.pid, processes.started(known.pid) or 0.0)


def _log_pipe(pid: int, descriptors: Sequence[int]) -> Path | None:
    """Return the path in /proc of the pipe to the log writer of a process; None if there is none.

    That pipe is open for reading, too, unlike other pipes (see `logs.open_writer`).
    """
    for number in descriptors:
        path = Path(f"/proc/{pid}/fd/{number}")
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/fdinfo/{number}").read_text().split()
            flags = int(fields[fields.index("flags:") + 1], 8)  # See proc_pid_fdinfo(5).
            if flags & os.O_ACCMODE == os.O_RDWR and path.readlink().name.startswith("pipe:"):
                return path
    return None


def _reader(pipe: Path) -> Identity | None:
    """Return a process with this pipe as its standard input, which each log writer has."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "fd" / "0").readlink() == pipe:
                pid = int(process.name)
                return Identity(pid, processes.started(pid) or 0.0)
    return None
