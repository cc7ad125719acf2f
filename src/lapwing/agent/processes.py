"""Processes: start one that outlives us, know it again, learn of its end, stop it.

A replica runs in a session of its own, so neither Ctrl-C in a terminal nor the death of the agent
reaches it, and everything it starts can be ended as one group. An agent that comes back knows it
again by process id *and* start time: the id alone may belong to a stranger by then. The start time
is the kernel's tick count, not a clock time, because clock times jump.

The end of a process is told by a pidfd where the kernel has them (no polling, also for processes
that are not our children), else by looking every quarter of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lapwing.errors import ReplicaError

MARK = "LAPWING_OWNER"
"""The variable that marks a process as ours: LAPWING_HOME, then what it is, after a bar."""


LOWEST_PORT = 18000
"""The lowest port that a replica is given."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: its id and when it started."""

    pid: int
    started: float


def spawn(
    arguments: Sequence[str], *, environ: Mapping[str, str], folder: Path, log: Path
) -> Identity:
    """Start a process in a session of its own, with its output appended to `log` (0600).

    Raises ReplicaError if the program cannot be run.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        process = subprocess.Popen(
            list(arguments),
            env=dict(environ),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            close_fds=True,
        )
    except OSError as error:
        raise ReplicaError(
            f"{arguments[0]} cannot be started: {error.strerror}.",
            hint="Check `command` in the stack file.",
        ) from error
    finally:
        os.close(descriptor)
    process.returncode = 0  # We reap by ourselves: Popen must not, nor warn that it did not.
    return Identity(process.pid, started(process.pid) or 0.0)


def started(pid: int) -> float | None:
    """When a process started, in the kernel's ticks; None if there is no such process.

    A zombie counts as gone. Source: proc_pid_stat(5), fields 3 (state) and 22 (starttime).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _started_elsewhere(pid)
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else float(fields[19])


def _started_elsewhere(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def alive(identity: Identity) -> bool:
    """Whether this very process still runs."""
    return started(identity.pid) == identity.started


async def ended(identity: Identity) -> str:
    """Wait for the end of a process; returns how it ended, in words."""
    try:
        descriptor = os.pidfd_open(identity.pid)
    except (AttributeError, OSError):
        while alive(identity):
            await asyncio.sleep(0.25)
        return reap(identity.pid)
    try:
        if alive(identity):
            readable = asyncio.Event()
            loop = asyncio.get_running_loop()
            loop.add_reader(descriptor, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(descriptor)
    finally:
        os.close(descriptor)
    return reap(identity.pid)


def reap(pid: int) -> str:
    """Collect a dead child; returns how it ended, or that nobody can tell."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return "ended"
    if not found:
        return "ended"
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed by {signal.Signals(-code).name}"
    return f"exited with status {code}"


async def stop(identity: Identity, grace: float) -> None:
    """Ask a process to end, wait `grace` seconds, then kill what is left of its group."""
    if alive(identity):
        _signal(identity, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended(identity), grace)
    kill(identity)


def kill(identity: Identity) -> None:
    """Kill a process and its group at once. Does nothing if the id is somebody else's by now."""
    leader = started(identity.pid)
    if leader is not None and leader != identity.started:
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(identity.pid, signal.SIGKILL)
    reap_soon(identity.pid)


def reap_soon(pid: int, patience: float = 5.0) -> None:
    """Collect a process that was just killed, so that it does not stay as a zombie; wait until one
    that is not our child is gone: what it listened on is free only then."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            if os.waitpid(pid, os.WNOHANG)[0]:
                return
        except ChildProcessError:
            _wait_for_stranger(pid, until)
            return
        time.sleep(0.002)


def _wait_for_stranger(pid: int, until: float) -> None:
    """Wait until the last thread of a process has ended. Its first thread may be a zombie while
    others still hold its sockets; a pidfd is readable only after the last one. Source:
    pidfd_open(2)."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        while started(pid) is not None and time.monotonic() < until:
            time.sleep(0.002)
        return
    try:
        waiting = select.poll()
        waiting.register(descriptor, select.POLLIN)
        waiting.poll(max(0.0, until - time.monotonic()) * 1000)
    finally:
        os.close(descriptor)


def _signal(identity: Identity, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(identity.pid, number)


def owned(home: Path) -> Iterator[tuple[Identity, str]]:
    """Every process of ours that runs, with what it was started as, by the mark in its
    environment. Finds what was started a moment before a kill and never written down. Linux only;
    nothing elsewhere."""
    mark = f"{MARK}={home}|".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environ = (entry / "environ").read_bytes()
        except OSError:
            continue
        for variable in environ.split(b"\0"):
            if variable.startswith(mark):
                pid = int(entry.name)
                since = started(pid)
                if since is not None:
                    yield Identity(pid, since), variable[len(mark) :].decode(errors="replace")


def free_port(taken: set[int]) -> int:
    """A TCP port on 127.0.0.1 that nobody listens on and that is not in `taken`.

    It lies below the range from which the kernel takes the ports of outgoing connections, so none
    of those can sit on it at the moment when a replica starts again. Source: ip(7),
    ip_local_port_range. Raises ReplicaError if there is none.
    """
    ports = range(LOWEST_PORT, _ephemeral())
    for port in random.sample(ports, min(len(ports), 200)):
        if port not in taken and _bindable(port):
            return port
    raise ReplicaError("No free port was found on 127.0.0.1.", hint="Close some programs.")


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _ephemeral() -> int:
    """The first port of outgoing connections; 32768 where the system does not say, or where almost
    every port is one."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32768
    return first if first >= LOWEST_PORT + 1000 else 32768
