"""Ends processes with all that they started: gracefully (`stop`) or at once (`kill`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from lapwing.agent import cgroups
from lapwing.agent.process_tree import members
from lapwing.agent.processes import (
    MARK,
    POLL_INTERVAL_S,
    Identity,
    Launch,
    alive,
    output_written,
    pidfd,
    readable,
    spawn,
    started,
)
from lapwing.agent.watching import watch

SHELLS = frozenset({"sh", "dash", "bash", "ash", "busybox", "ksh", "zsh"})
"""Programs that do not pass SIGTERM on to what they run."""
KILL_TIMEOUT_S = 5.0
"""How long `kill` waits for the exit of a process that was sent SIGKILL."""


async def run(launch: Launch, log: Path, timeout: float) -> str | None:
    """Run a process to completion; returns how it ended, None if `timeout` seconds were too short.

    However this call ends, also by cancellation, the process and its group are gone.
    """
    identity = spawn(launch, log)
    try:
        async with asyncio.timeout(timeout):
            return await watch(identity, log)
    except TimeoutError:
        return None
    finally:
        await kill(identity, launch.environ.get(MARK), watched=True)


async def stop(
    identity: Identity,
    grace: float,
    mark: str | None = None,
    *,
    watched: bool = False,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> None:
    """Stop a process gracefully, with all that it started, then kill what is left.

    Every process gets `stop_signal` when its parent among them has exited or is a shell; the first
    one at once. So a shell that stays does not keep the signal from its children, and a server that
    ends its own children (a job queue with its pool) is not disturbed. All together have `grace`
    seconds. `mark` and `watched` are explained at `kill`.
    """
    watched = (watched and identity.pid > 0) or alive(identity)
    loop = asyncio.get_running_loop()
    until, signalled = loop.time() + grace, set[Identity]()
    while (found := await members(identity, mark, watched)) and loop.time() < until:
        for member in found.values():
            parent = found.get(member.parent)
            due = parent is None or parent.name in SHELLS
            if due and member.identity not in signalled:
                signalled.add(member.identity)
                _send(member.identity, stop_signal)
        await asyncio.sleep(POLL_INTERVAL_S)
    if not alive(identity):
        await output_written(identity)
    await kill(identity, mark, watched=watched)


async def kill(
    identity: Identity,
    mark: str | None = None,
    *,
    watched: bool = False,
    timeout: float = KILL_TIMEOUT_S,
) -> None:
    """Kill a process and all that it started, and wait until they are gone.

    These are the processes of its session, and those anywhere that have its `mark` or are in its
    control group (children that began another session). The session counts while the process itself
    exists, or if its exit was `watched`: its ID in an old record may now be that of an unrelated
    session.

    Only then are the ports that it listened on free. Its first thread may be a zombie while others
    still hold its sockets; a pidfd becomes readable after the last one (pidfd_open(2)).
    """
    leader = started(identity.pid)
    ours = identity.pid > 0 and (leader == identity.started or (leader is None and watched))
    if ours:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(identity.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            if mark is not None:
                await asyncio.to_thread(cgroups.kill, mark)
            killed = set[Identity]()  # A process that is exiting has no environment any more.
            while (found := await members(identity, mark, ours)) or any(map(alive, killed)):
                for member in found.values():
                    killed.add(member.identity)
                    _send(member.identity, signal.SIGKILL)
                await asyncio.sleep(POLL_INTERVAL_S / 10)
    if ours:
        await wait_gone(identity.pid, timeout)
    if mark is not None:
        await _remove_group(mark, timeout)


async def _remove_group(mark: str, timeout: float) -> None:
    """Remove the control group of a mark, as soon as the kernel has no process in it any more."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            while not await asyncio.to_thread(cgroups.remove, mark):  # rmdir(2) waits there.
                await asyncio.sleep(POLL_INTERVAL_S)


def _send(identity: Identity, number: signal.Signals) -> None:
    if alive(identity):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(identity.pid, number)


async def wait_gone(pid: int, timeout: float) -> None:
    """Wait until a process that was killed is gone with all its threads, and collect it.

    Waits at most `timeout` seconds. Without collecting it, a child would stay as a zombie.
    """
    with contextlib.suppress(TimeoutError), pidfd(pid) as descriptor:
        async with asyncio.timeout(timeout):
            if descriptor is not None:
                await readable(descriptor)
            while _remains(pid):
                await asyncio.sleep(POLL_INTERVAL_S)


def _remains(pid: int) -> bool:
    """Return whether a process still exists, after collecting it if it is an exited child."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return started(pid) is not None
