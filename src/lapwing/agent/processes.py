"""Start processes that outlive the agent, identify them again, wait for their exit, stop them.

A replica runs in its own session, so neither Ctrl-C in a terminal nor the death of the agent
reaches it. Everything it starts is found again by this session and by a mark in the environment,
which children inherit, and is stopped with it. A restarted agent
identifies it by process id *and* start time, because the id alone may have been reused. The start
time is the kernel's tick count, not a clock time, because clocks are adjusted.

Waiting never blocks the event loop: a pidfd reports the exit of any process, also of one that is
not a child of the agent. Without pidfds the process table is polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import random
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lapwing.agent import logs
from lapwing.errors import ReplicaError

MARK = "LAPWING_OWNER"
"""The environment variable that marks a process as started by Lapwing: `<LAPWING_HOME>|<owner>`."""
LOWEST_PORT = 18000
"""The lowest port that a replica is given."""
SUCCESS = "exited with status 0"
"""How a process ended that was successful."""
POLL_INTERVAL_S = 0.05
"""Time between two looks at the process table, where the kernel has no pidfds."""
SHELLS = frozenset({"sh", "dash", "bash", "ash", "busybox", "ksh", "zsh"})
"""Programs that do not pass SIGTERM on to what they run."""
KILL_TIMEOUT_S = 5.0
"""How long `kill` waits for the exit of a process that was sent SIGKILL."""
LOG_TIMEOUT_S = 0.3
"""How long the exit of a process is reported late because its last output is being written."""
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0
"""A process that ran this long before it exited is restarted with the first delay again."""
_log_writers: dict[int, subprocess.Popen[bytes]] = {}
"""The writer of the log of each process that this process started, by process id."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: its id and its start time."""

    pid: int
    started: float


@dataclass(frozen=True, slots=True)
class Owner:
    """What a process belongs to.

    That is a stack, an environment, a service (or a resource), and the generation's label.
    """

    stack: str
    environment: str
    service: str
    label: str
    index: int = 0

    def __str__(self) -> str:
        """Return the owner as it is written in the mark."""
        return f"{self.stack}/{self.environment}/{self.service}/{self.label}/{self.index}"


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a process."""

    arguments: tuple[str, ...]
    environ: Mapping[str, str]
    folder: Path


class RestartDelay:
    """The growing delay between restarts of one process."""

    def __init__(self, first: float = FIRST_DELAY_S, longest: float = LONGEST_DELAY_S) -> None:
        self._first = self._next = first
        self._longest = longest

    def record_run(self, seconds: float) -> None:
        """Start over with the first delay if the process ran long enough to count as steady."""
        if seconds > STEADY_S:
            self._next = self._first

    async def wait(self) -> None:
        """Sleep for the present delay, then double it."""
        await asyncio.sleep(self._next)
        self._next = min(self._next * 2, self._longest)


def spawn(launch: Launch, log: Path) -> Identity:
    """Start a process in its own session, with its output appended to `log` (0600), bounded.

    Raises ReplicaError if the program cannot be run.
    """
    with contextlib.suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
    for pid, ended_writer in list(_log_writers.items()):
        if ended_writer.poll() is not None:  # This also collects it.
            del _log_writers[pid]
    descriptor, writer = logs.open_writer(log)
    try:
        process = subprocess.Popen(
            launch.arguments,
            env=launch.environ,
            cwd=launch.folder,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            close_fds=True,
        )
    except OSError as error:
        if writer is not None:
            _log_writers[writer.pid] = writer
        raise ReplicaError(
            f"{launch.arguments[0]} cannot be started: {error.strerror}.",
            hint="Check `command` in the stack file.",
        ) from error
    finally:
        os.close(descriptor)
    process.returncode = 0  # `reap` collects it: Popen must not, nor warn that it did not.
    if writer is not None:
        _log_writers[process.pid] = writer
    return Identity(process.pid, started(process.pid) or 0.0)


def started(pid: int) -> float | None:
    """Return the start time of a process in kernel ticks; None if it does not exist.

    A zombie counts as exited. Source: proc_pid_stat(5), fields 3 (state) and 22 (starttime).
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None if Path("/proc/self/stat").exists() else _started_without_proc(pid)
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else float(fields[19])


def _started_without_proc(pid: int) -> float | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else process.create_time()
    except psutil.Error:
        return None


def alive(identity: Identity) -> bool:
    """Return whether this very process is running."""
    return started(identity.pid) == identity.started


async def ended(identity: Identity) -> str:
    """Wait for the exit of a process; returns how it ended, such as `exited with status 1`."""
    with _pidfd(identity.pid) as descriptor:
        if descriptor is None:
            while alive(identity):
                await asyncio.sleep(POLL_INTERVAL_S)
        elif alive(identity):
            await _readable(descriptor)
    await output_written(identity)
    return reap(identity.pid)


async def output_written(identity: Identity) -> None:
    """Wait until the last output of a process that exited is in its log.

    Children that hold its output open are waited for only LOG_TIMEOUT_S seconds.
    """
    writer = _log_writers.get(identity.pid)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOG_TIMEOUT_S):
            while writer is not None and writer.poll() is None:
                await asyncio.sleep(0.002)


def output_lost(pid: int) -> bool:
    """Return whether nothing reads the output of a process any more, so that it cannot write.

    Its descriptors 1 and 2 are looked at, because it may have redirected one of them. A pipe
    without readers reports POLLERR (poll(2)). False where this is unknown.
    """
    found = [_unread(f"/proc/{pid}/fd/{number}") for number in (1, 2)]
    return True in found and False not in found


def _unread(path: str) -> bool | None:
    """Return whether a pipe has no reader; None if it is no pipe or unknown."""
    try:
        if not str(Path(path).readlink()).startswith("pipe:"):
            return None
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        poll = select.poll()
        poll.register(descriptor, 0)
        return bool(poll.poll(0))
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _pidfd(pid: int) -> Iterator[int | None]:
    """Open a pidfd; None where the kernel has none or the process is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except (AttributeError, OSError):
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)


def reap(pid: int) -> str:
    """Collect a child that exited; returns how it ended, `ended` where that is unknown."""
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


async def run(launch: Launch, log: Path, timeout: float) -> str | None:
    """Run a process to completion; returns how it ended, None if `timeout` seconds were too short.

    However this call ends, also by cancellation, the process and its group are gone.
    """
    identity = spawn(launch, log)
    try:
        async with asyncio.timeout(timeout):
            return await ended(identity)
    except TimeoutError:
        return None
    finally:
        await kill(identity, launch.environ.get(MARK), watched=True)


async def stop(
    identity: Identity, grace: float, mark: str | None = None, *, watched: bool = False
) -> None:
    """Stop a process gracefully, with all that it started, then kill what is left.

    Every process gets SIGTERM when its parent among them has exited or is a shell; the first one
    at once. So a shell that stays does not keep the signal from its children, and a server that
    ends its own children (a job queue with its pool) is not disturbed. All together have `grace`
    seconds. `mark` and `watched` are explained at `kill`.
    """
    watched = (watched and identity.pid > 0) or alive(identity)
    loop = asyncio.get_running_loop()
    until, signalled = loop.time() + grace, set[Identity]()
    while (members := await _members(identity, mark, watched)) and loop.time() < until:
        for member in members.values():
            parent = members.get(member.parent)
            due = parent is None or parent.name in SHELLS
            if due and member.identity not in signalled:
                signalled.add(member.identity)
                _send(member.identity, signal.SIGTERM)
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

    These are the processes of its session, and those anywhere that have its `mark` (children that
    began a session of their own). The session counts while the process itself exists, or if its
    exit was `watched`: its ID in an old record may now be that of an unrelated session.

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
            while members := await _members(identity, mark, ours):
                for member in members.values():
                    _send(member.identity, signal.SIGKILL)
                await asyncio.sleep(POLL_INTERVAL_S / 10)
    if ours:
        await wait_gone(identity.pid, timeout)


def _send(identity: Identity, number: signal.Signals) -> None:
    if alive(identity):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(identity.pid, number)


@dataclass(frozen=True, slots=True)
class _Member:
    """A process, its parent's id, its session and the name of its program."""

    identity: Identity
    parent: int
    session: int
    name: str


async def _members(identity: Identity, mark: str | None, ours: bool) -> dict[int, _Member]:
    """Find, in a thread, what a process started, itself included: see `kill`."""
    return await asyncio.to_thread(_find_members, identity, mark, ours)


def _find_members(identity: Identity, mark: str | None, ours: bool) -> dict[int, _Member]:
    if not Path("/proc/self/stat").exists():
        only = _Member(identity, 0, identity.pid, "")
        return {identity.pid: only} if ours and alive(identity) else {}
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        member = _member(int(entry.name))
        if member is None or member.identity.started < identity.started:
            continue
        if (ours and member.session == identity.pid) or (mark and _marked(entry, mark)):
            found[member.identity.pid] = member
    return found


def _member(pid: int) -> _Member | None:
    """Read a process; None if it has exited. Source: proc_pid_stat(5)."""
    try:
        before, _, after = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return None
    fields = after.split()
    if not fields or fields[0] in "ZX":
        return None
    since = Identity(pid, float(fields[19]))
    name = _program(pid) or before.partition("(")[2]
    return _Member(since, int(fields[1]), int(fields[3]), name)


def _program(pid: int) -> str | None:
    """Return the file name of the program of a process; None if it may not be read.

    The name in `stat` is that of the script where a shell runs one by its `#!` line.
    """
    try:
        name = Path(f"/proc/{pid}/exe").readlink().name
    except OSError:
        return None
    return name.removesuffix(" (deleted)")


def _marked(process: Path, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


async def wait_gone(pid: int, timeout: float) -> None:
    """Wait until a process that was killed is gone with all its threads, and collect it.

    Waits at most `timeout` seconds. Without collecting it, a child would stay as a zombie.
    """
    with contextlib.suppress(TimeoutError), _pidfd(pid) as descriptor:
        async with asyncio.timeout(timeout):
            if descriptor is not None:
                await _readable(descriptor)
            while _remains(pid):
                await asyncio.sleep(POLL_INTERVAL_S)


def _remains(pid: int) -> bool:
    """Return whether a process still exists, after collecting it if it is an exited child."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return started(pid) is not None


def owned(home: Path) -> Iterator[tuple[Identity, str]]:
    """Yield every running process of a LAPWING_HOME with its owner.

    It is found by the mark in its environment, so also if it was started just before a crash and
    never recorded. Reads all of /proc, so call it in a thread. Linux only: nothing elsewhere.
    """
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
    """Return a TCP port on 127.0.0.1 that is neither in use nor in `taken`.

    It is below the kernel's range for outgoing connections, so none of those can occupy it when a
    replica restarts. Source: ip(7), ip_local_port_range. Raises ReplicaError if there is none.
    """
    ports = range(LOWEST_PORT, _first_ephemeral_port())
    for port in random.sample(ports, min(len(ports), 200)):
        if port not in taken and _bindable(port):
            return port
    raise ReplicaError(
        f"No free port was found on 127.0.0.1 between {ports.start} and {ports.stop - 1}.",
        hint="Stop programs that listen there: `ss -ltnp` lists them.",
    )


def public_listener(port: int) -> str | None:
    """Return an address other than loopback on which a process listens on a port.

    Linux only: None elsewhere. Source: proc_pid_net(5), tcp: addresses are hexadecimal words in the
    order of the machine's bytes; state 0A is LISTEN.
    """
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in map(str.split, lines):
            host, local_port = fields[1].split(":")
            if fields[3] == "0A" and int(local_port, 16) == port:
                words = [int(host[i : i + 8], 16) for i in range(0, len(host), 8)]
                packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
                address = ipaddress.ip_address(packed)
                mapped = getattr(address, "ipv4_mapped", None) or address
                if not mapped.is_loopback:
                    return str(address)
    return None


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _first_ephemeral_port() -> int:
    """Return the first port of outgoing connections; 32768 where that is unknown or too low."""
    try:
        first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32768
    return first if first >= LOWEST_PORT + 1000 else 32768
