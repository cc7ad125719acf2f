"""Running a command of a build: logged, bounded in time, and never left behind.

Whatever a build starts is in one process group, which is ended when its time is over, when the
person interrupts, or when Lapwing fails. The environment is a chosen one: a build sees no variable
of the user's shell but the ones that tools need to reach their registries.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from lapwing.build.excerpt import excerpt
from lapwing.build.log import BuildLog
from lapwing.errors import BuildError, NoSpaceError

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL."""
LONGEST = 65536
"""Bytes of one line; a longer one is taken as several."""
PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TMPDIR|XDG_(CACHE|CONFIG|DATA)_HOME"
    r"|SSL_CERT_(FILE|DIR)|NODE_EXTRA_CA_CERTS|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|(PIP|UV|NPM|npm_config)_\w+|(HTTPS?|NO|ALL)_PROXY|(https?|no|all)_proxy",
    re.ASCII,
)
"""The variables of the user's environment that a build gets."""


def environment(user: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The environment of a build: what may pass from the user's, and what the build says. Pure."""
    passed = {name: value for name, value in user.items() if PASSED_ON.fullmatch(name)}
    return {"PATH": os.defpath, **passed, "CI": "true", **extra}


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
    log.begin(arguments)
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
        _pump(process, log, until)
        status = process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise BuildError(
            f"{doing} did not end in the time a build may take, and was stopped.",
            log=log.path,
            detail="\n".join(list(log.lines)[-10:]) or None,
            hint="If it needs longer, raise `build: {timeout: ...}` of the service. A command that "
            "asks a question or watches files never ends.",
        ) from error
    finally:
        _end(process)
    if status != 0:
        raise _failure(status, log, doing)


def _failure(status: int, log: BuildLog, doing: str) -> BuildError | NoSpaceError:
    lines = list(log.lines)
    if any("No space left on device" in line or "ENOSPC" in line for line in lines):
        return NoSpaceError(
            f"{doing} failed: the disk is full. The build was undone.",
            hint="Free some space and try again.",
        )
    how = f"exit status {status}"
    if status < 0:
        with contextlib.suppress(ValueError):
            how = f"ended by {signal.Signals(-status).name}"
    hint = None
    if -status == signal.SIGKILL or status == 128 + signal.SIGKILL:
        hint = "The system may have run out of memory."
    return BuildError(
        f"{doing} failed ({how}).", log=log.path, detail=excerpt(lines) or None, hint=hint
    )


def _pump(process: subprocess.Popen[bytes], log: BuildLog, until: float) -> None:
    """Copy the output to the log until it ends, or the program does, or the time is over."""
    assert process.stdout is not None
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := until - time.monotonic()) > 0:
            if not selector.select(min(left, 0.2)):
                if process.poll() is not None:
                    break  # It has ended; something it left behind holds the pipe open.
                continue
            data = os.read(process.stdout.fileno(), LONGEST)
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                log.write(line.decode(errors="replace").rstrip("\r"))
            if not data:
                break
            if len(rest) >= LONGEST:
                log.write(rest.decode(errors="replace"))
                rest = b""
    if rest:
        log.write(rest.decode(errors="replace"))


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the process group, also if the person interrupts once more."""
    try:
        if process.stdout is not None:
            process.stdout.close()
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
    finally:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
