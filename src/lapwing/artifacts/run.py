"""Running a command of a build: logged, bounded in time, and never left behind.

Whatever a build starts is in one process group, which is ended when its time is over, when the
person interrupts, or when Lapwing fails. The environment is a chosen one: a build sees no variable
of the user's shell but the ones that tools need to reach their registries.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from lapwing.errors import BuildError, NoSpaceError

KEPT_LINES = 2000
SHOWN_LINES = 25
PASSED_ON = re.compile(
    r"^(PATH|HOME|LANG|LC_ALL|TMPDIR|SSL_CERT_(FILE|DIR)|(PIP|UV|NPM|npm_config)_\w+"
    r"|(HTTPS?|NO|ALL)_PROXY|(https?|no|all)_proxy|NODE_EXTRA_CA_CERTS|REQUESTS_CA_BUNDLE)$",
    re.ASCII,
)
"""The variables of the user's environment that a build gets."""
TROUBLE = re.compile(
    r"\b(error|errors|failed|failure|cannot|could not|not found|no matching|unsatisfiable"
    r"|traceback|exception|unexpected|missing|denied|refused)\b|[✗✖\u00d7]|ERR!",
    re.IGNORECASE,
)
NOISE = re.compile(
    r"A complete log of this run|npm (error|ERR!) (A complete log|\s*$|code ELIFECYCLE|errno)"
    r"|npm (error|ERR!) (path|command|Lifecycle|workspace|location)|_logs/.*-debug-0\.log"
)


class BuildLog:
    """The log of one build, on disk and to whoever listens."""

    def __init__(self, path: Path, on_line: Callable[[str], None] | None = None) -> None:
        self.path = path
        self._on_line = on_line
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file: IO[str] = os.fdopen(descriptor, "w", encoding="utf-8")
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)

    def write(self, line: str) -> None:
        """Add a line."""
        self.lines.append(line)
        self._file.write(line + "\n")
        self._file.flush()
        if self._on_line is not None:
            self._on_line(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def run(
    arguments: Sequence[str],
    *,
    folder: Path,
    environ: Mapping[str, str],
    log: BuildLog,
    until: float,
    doing: str,
) -> None:
    """Run a command; `until` is a monotonic time, `doing` says what it is for ("installing ...").

    Raises BuildError with the part of the output that matters, NoSpaceError when that is the cause.
    """
    log.lines.clear()
    log.write("$ " + " ".join(arguments))
    try:
        process = subprocess.Popen(
            list(arguments),
            cwd=folder,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise BuildError(
            f"{doing} failed: {arguments[0]} cannot be started ({error.strerror}).", log=log.path
        ) from error
    try:
        in_time = _pump(process, log, until)
        if not in_time:
            raise BuildError(
                f"{doing} took too long and was stopped.",
                log=log.path,
                detail=excerpt(list(log.lines)[1:]),
                hint="If it needs the time, raise `build: {timeout: ...}` of the service.",
            )
        status = process.wait()
    finally:
        _end(process)
    if status != 0:
        text = "\n".join(log.lines)
        if "No space left on device" in text or "ENOSPC" in text:
            raise NoSpaceError(
                "The disk is full; the build was undone.", hint="Free some space and try again."
            )
        raise BuildError(
            f"{doing} failed (exit status {status}).",
            log=log.path,
            detail=excerpt(list(log.lines)[1:]),
        )


def environment(user: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a build: what may pass from the user's, and what the build says. Pure."""
    return {k: v for k, v in user.items() if PASSED_ON.match(k)} | {"CI": "true"} | dict(extra)


def excerpt(lines: list[str], most: int = SHOWN_LINES) -> str:
    """The part of a build's output that tells why it failed. Pure.

    From the first line that speaks of trouble, with the two before it; tools print the cause first
    and the consequences after. Without such a line, the last lines.
    """
    clean = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).rstrip() for line in lines]
    telling = [line for line in clean if line and not NOISE.search(line)]
    first = next((i for i, line in enumerate(telling) if TROUBLE.search(line)), None)
    begin = max(0, len(telling) - most) if first is None else max(0, first - 2)
    return "\n".join(telling[begin : begin + most])


def full(error: OSError) -> bool:
    """Whether an error of the system means that the disk is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _pump(process: subprocess.Popen[bytes], log: BuildLog, until: float) -> bool:
    """Copy the output to the log until it ends; False if the time was over first."""
    assert process.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            left = until - time.monotonic()
            if left <= 0:
                return False
            if not selector.select(min(left, 0.5)):
                if process.poll() is not None:
                    return True  # It has ended; something it left behind holds the pipe open.
                continue
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                break
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                log.write(line.decode(errors="replace").rstrip("\r"))
    if rest:
        log.write(rest.decode(errors="replace"))
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.01)
    return process.poll() is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the process group."""
    if process.stdout is not None:
        process.stdout.close()
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
