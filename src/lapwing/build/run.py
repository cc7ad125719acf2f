"""Running a command of a build: logged, bounded in time, and never left behind.

Whatever a build starts is in one process group, which is ended when its time is over, when the
person interrupts, or when Lapwing fails. The environment is a chosen one: a build sees no variable
of the user's shell but the ones that tools need to reach their registries.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from lapwing.build.excerpt import excerpt
from lapwing.build.log import BuildLog
from lapwing.errors import BuildError, NoSpaceError
from lapwing.system.process import run_lines

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
        status = run_lines(arguments, environ, log.write, deadline=until, folder=folder)
    except TimeoutError as error:
        raise BuildError(
            f"{doing} did not end in the time a build may take, and was stopped.",
            log=log.path,
            detail="\n".join(list(log.lines)[-10:]) or None,
            hint="If it needs longer, raise `build: {timeout: ...}` of the service. A command that "
            "asks a question or watches files never ends.",
        ) from error
    except OSError as error:
        raise BuildError(
            f"{doing} failed: {arguments[0]} cannot be started ({error.strerror}).", log=log.path
        ) from error
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
