"""Start processes that outlive the agent, identify them again, wait for their exit.

A replica runs in a new session, so neither Ctrl-C in a terminal nor an exit of the agent ends
it, and in a new control group (`cgroups`) where one can be created. Everything it starts
is found again (`process_tree`) and is stopped with it (`termination`). A restarted agent identifies
it by process id *and* start time, because the id alone may have been reused. The start time is the
kernel's tick count, not a clock time, because clocks are adjusted.

Waiting never blocks the event loop: a pidfd reports the exit of any process, also of one that is
not a child of the agent. Without pidfds the process table is polled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lapwing.agent import cgroups, logs
from lapwing.errors import ReplicaError

MARK = "LAPWING_OWNER"
"""The environment variable that marks a process as started by Lapwing: `<LAPWING_HOME>|<owner>`."""
SUCCESS = "exited with status 0"
"""How a process ended that was successful."""
POLL_INTERVAL_S = 0.05
"""Time between two looks at the process table, where the kernel has no pidfds."""
LOG_TIMEOUT_S = 0.3
"""How long the exit of a process is reported late because its last output is being written."""
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 30.0
STEADY_S = 60.0
"""A process that ran this long before it exited is restarted with the first delay again."""
log_writers: dict[int, subprocess.Popen[bytes]] = {}
"""Log writers started by this process, by the id of the process whose output they write, or by the
id of the log writer if this process did not start that process."""


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
class ContainerOptions:
    """How the container of a replica is made. `volumes` maps paths in it to folders outside.

    `published` is the port on the loopback address for `port`, the one in the container. A command
    that runs once may use the network of the machine (`host_network`). In `network`, the container
    has the name `alias`. `files` are read-only, `temporary` are folders in memory, and `arguments`
    of the launch may be those of the image's entrypoint (`keep_entrypoint`).
    """

    image: str
    user: int
    port: int | None = None
    published: int | None = None
    scratch: int | None = None
    memory: int | None = None
    cpu: float | None = None
    volumes: Mapping[str, Path] = field(default_factory=dict)
    host_network: bool = False
    network: str | None = None
    alias: str | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    temporary: tuple[str, ...] = ("/tmp",)  # noqa: S108 - in the container
    keep_entrypoint: bool = False


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a process, or a container. Without arguments, it runs what its image says."""

    arguments: tuple[str, ...]
    environ: Mapping[str, str]
    folder: Path
    container: ContainerOptions | None = None


class RestartDelay:
    """The growing delay between restarts of one process."""

    def __init__(self, first: float = FIRST_DELAY_S, longest: float = LONGEST_DELAY_S) -> None:
        self._first = self._next = first
        self._longest = longest

    def record_run(self, seconds: float) -> None:
        """Start over with the first delay if the process ran long enough to count as steady."""
        if seconds > STEADY_S:
            self._next = self._first

    def set_next(self, seconds: float) -> None:
        """Set the next delay, where what prevents a start is known and not the program's fault."""
        self._next = seconds

    async def wait(self) -> None:
        """Sleep for the present delay, then double it."""
        await asyncio.sleep(self._next)
        self._next = min(self._next * 2, self._longest)


def spawn(launch: Launch, log: Path, descriptors: Sequence[int] = ()) -> Identity:
    """Start a process in a new session, with its output appended to `log` (0600), bounded.

    It inherits `descriptors`. Raises ReplicaError if the program cannot be run.
    """
    with contextlib.suppress(OSError):
        log.parent.mkdir(parents=True, exist_ok=True)
    for pid, ended_writer in list(log_writers.items()):
        if ended_writer.poll() is not None:  # This also collects it.
            del log_writers[pid]
    arguments = cgroups.command(launch.environ.get(MARK), launch.arguments)
    descriptor, writer = _open_log(log)
    try:
        process = subprocess.Popen(
            arguments,
            env=launch.environ,
            cwd=launch.folder,
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            start_new_session=True,
            pass_fds=descriptors,
        )
    except OSError as error:
        raise ReplicaError(
            f"{launch.arguments[0]} cannot be started: {error.strerror or error}.",
            hint="Check `command` in the stack file.",
        ) from error
    finally:
        os.close(descriptor)
    process.returncode = 0  # `reap` collects it: Popen must not, nor warn that it did not.
    log_writers[process.pid] = log_writers.pop(writer)
    return Identity(process.pid, started(process.pid) or 0.0)


@contextlib.contextmanager
def open_logs(paths: Sequence[Path]) -> Iterator[list[int]]:
    """Open logs, bounded, for a process to inherit; yields the descriptors to write to.

    Raises OSError.
    """
    with contextlib.ExitStack() as stack:
        descriptors = []
        for path in paths:
            descriptors.append(_open_log(path)[0])
            stack.callback(os.close, descriptors[-1])
        yield descriptors


def _open_log(log: Path) -> tuple[int, int]:
    """Open a log; returns the descriptor to write to, and the process id of its writer."""
    descriptor, writer = logs.open_writer(log)
    log_writers[writer.pid] = writer
    return descriptor, writer.pid


def started(pid: int) -> float | None:
    """Return the start time of a process in kernel ticks; None if it does not exist.

    A zombie counts as exited.
    """
    found = read_stat(pid)
    if found is not None:
        return found.started
    return None if Path("/proc/self/stat").exists() else _started_without_proc(pid)


@dataclass(frozen=True, slots=True)
class Stat:
    """A process as in /proc. `started` is in kernel ticks."""

    name: str
    parent: int
    session: int
    started: float


def read_stat(pid: int) -> Stat | None:
    """Read a process; None if it has exited, also as a zombie, or where there is no /proc.

    Source: proc_pid_stat(5), fields 2 (comm), 3 (state), 4 (ppid), 6 (session), 22 (starttime).
    """
    try:
        before, _, after = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return None
    fields = after.split()
    if not fields or fields[0] in "ZX":
        return None
    name = before.partition("(")[2]
    return Stat(name, int(fields[1]), int(fields[3]), float(fields[19]))


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
    await exited(identity)
    await output_written(identity)
    return reap(identity.pid)


async def exited(identity: Identity) -> None:
    """Wait for the exit of a process."""
    with pidfd(identity.pid) as descriptor:
        if descriptor is None:
            while alive(identity):
                await asyncio.sleep(POLL_INTERVAL_S)
        elif alive(identity):
            await readable(descriptor)


async def output_written(identity: Identity) -> None:
    """Wait until the last output of a process that exited is in its log.

    Children that hold its output open are waited for only LOG_TIMEOUT_S seconds.
    """
    writer = log_writers.get(identity.pid)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOG_TIMEOUT_S):
            while writer is not None and writer.poll() is None:
                await asyncio.sleep(0.002)


@contextlib.contextmanager
def pidfd(pid: int) -> Iterator[int | None]:
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


async def readable(descriptor: int) -> None:
    """Wait until a descriptor can be read; a pidfd can when its process has exited."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    loop.add_reader(descriptor, event.set)
    try:
        await event.wait()
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
