"""Running a command to its end: bounded in time and output, and nothing of it is left behind.

The command runs in a new session and process group, without a terminal. Whatever it started
is ended with it: when it is done, when its time is over, and when we are interrupted. If we are
killed, the kernel sends it SIGTERM (`bound_to_caller`).

Commands that may ask the user something on the terminal (a backup command, `kind`), and the
processes of the agent, which outlive it, are not run here.
"""

from __future__ import annotations

import contextlib
import functools
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

TERMINATION_GRACE_S = 2.0
"""Time between SIGTERM and SIGKILL."""
MAX_LINE_BYTES = 65536
MAX_OUTPUT_BYTES = 64 * 1024 * 1024
_POLL_INTERVAL_S = 0.2


@dataclass(frozen=True, slots=True)
class Completed:
    """The result of a command. Output beyond MAX_OUTPUT_BYTES is dropped."""

    status: int
    stdout: bytes
    stderr: str


def run(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    *,
    timeout: float,
    folder: Path | None = None,
) -> Completed:
    """Run a command and collect its output.

    Raises:
        OSError: It cannot be started.
        TimeoutError: It did not end in time (an OSError as well).
    """
    if not hasattr(os, "killpg"):
        return _run_on_windows(arguments, environ, timeout, folder)
    process = _start(arguments, environ, folder, subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    stdout, stderr = bytearray(), bytearray()
    with _ending(process):
        receivers = {process.stdout: _collector(stdout), process.stderr: _collector(stderr)}
        status = _receive(process, receivers, time.monotonic() + timeout)
    return Completed(status, bytes(stdout), stderr.decode(errors="replace"))


def _run_on_windows(
    arguments: Sequence[str], environ: Mapping[str, str], timeout: float, folder: Path | None
) -> Completed:
    """Run a command where there are no process groups, and pipes cannot be selected."""
    try:
        done = subprocess.run(
            arguments,
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise TimeoutError from None
    return Completed(done.returncode, done.stdout, done.stderr.decode(errors="replace"))


def run_lines(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    write: Callable[[str], None],
    *,
    deadline: float,
    folder: Path,
) -> int:
    """Run a command and pass on each line of its output at once; returns its exit status.

    Standard error is part of the output. `deadline` is a monotonic time. A line that is longer
    than MAX_LINE_BYTES is passed on in several parts. Raises as `run` does.
    """
    process = _start(arguments, environ, folder, subprocess.STDOUT)
    assert process.stdout is not None
    rest = b""

    def receive(data: bytes) -> None:
        nonlocal rest
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) >= MAX_LINE_BYTES:
            lines, rest = [*lines, rest], b""
        for line in lines:
            write(line.decode(errors="replace").rstrip("\r"))

    with _ending(process):
        try:
            return _receive(process, {process.stdout: receive}, deadline)
        finally:
            if rest:
                write(rest.decode(errors="replace"))


def bound_to_caller(arguments: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return a command that gets SIGTERM when the thread that starts it ends, also by SIGKILL.

    The same command where `setpriv` is missing, and if its program is not found. Nothing is run in
    the child before the program, which is unsafe with threads. Source: PR_SET_PDEATHSIG(2const).
    """
    setpriv = _setpriv()
    if setpriv is None or shutil.which(arguments[0], path=environ.get("PATH", os.defpath)) is None:
        return list(arguments)
    return [setpriv, "--pdeathsig", "TERM", "--", *arguments]


@functools.cache
def _setpriv() -> str | None:
    """Return the setpriv of util-linux; that of BusyBox lacks the option."""
    found = shutil.which("setpriv", path=os.defpath)
    is_complete = found is not None and Path(found).resolve().name == "setpriv"
    return found if is_complete else None


def _start(
    arguments: Sequence[str], environ: Mapping[str, str], folder: Path | None, stderr: int
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        bound_to_caller(arguments, environ),
        cwd=folder,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        start_new_session=True,
    )


def _collector(output: bytearray) -> Callable[[bytes], None]:
    def collect(data: bytes) -> None:
        output.extend(data[: MAX_OUTPUT_BYTES - len(output)])

    return collect


def _receive(
    process: subprocess.Popen[bytes],
    receivers: Mapping[IO[bytes], Callable[[bytes], None]],
    deadline: float,
) -> int:
    """Pass on output until it ends or the command does; returns the exit status."""
    with selectors.DefaultSelector() as selector:
        for pipe, receive in receivers.items():
            selector.register(pipe, selectors.EVENT_READ, receive)
        while selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            ready = selector.select(min(left, _POLL_INTERVAL_S))
            if not ready and process.poll() is not None:
                break  # It has ended; something that it started holds the pipe open.
            for key, _ in ready:
                data = os.read(key.fd, MAX_LINE_BYTES)
                if data:
                    key.data(data)
                else:
                    selector.unregister(key.fileobj)
    try:
        return process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise TimeoutError from None


@contextlib.contextmanager
def _ending(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """End what is left of the process group, also if the user interrupts once more."""
    try:
        yield
    finally:
        try:
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(TERMINATION_GRACE_S)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
