"""Running a command of a build: logged, bounded in time, and never left behind.

Whatever a build starts is in one process group, which is ended when its time is over, when the
person interrupts, or when Lapwing fails. The environment is a chosen one: a build sees no variable
of the user's shell but the ones that tools need to reach their registries.

A build has a lower priority than running replicas: it gets less CPU, and if memory runs out, the
kernel kills its processes first.

The log is on disk for later, in memory for the error, line by line to who listens. What a build
prints may hold the credentials it was given, so their values are masked before a line goes
anywhere. A log has an end: a build that prints without one does not fill the disk.

The error has an excerpt. Tools print the cause first and its consequences after, and end with
advice about themselves. So the excerpt begins at the first line that speaks of trouble, with a
little of what came before, and leaves out what says nothing about the cause. Of a long one the end
is kept too, where a traceback names its exception. Without such a line it is the end of the output.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from lapwing.errors import BuildError, NoSpaceError
from lapwing.system.control_groups import lowest_limit, memory_groups, memory_limit
from lapwing.system.files import FULL
from lapwing.system.oom_kills import MACHINE, innermost_counter, oom_kills
from lapwing.system.process import run_lines
from lapwing.system.sanitize import mask
from lapwing.system.secret_names import URL_PASSWORD, is_secret_name

PASSED_ON = re.compile(
    r"PATH|HOME|USER|LOGNAME|LANG|LC_\w+|TMPDIR|XDG_(CACHE|CONFIG|DATA)_HOME"
    r"|SSL_CERT_(FILE|DIR)|NODE_EXTRA_CA_CERTS|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
    r"|(PIP|UV|NPM|npm_config|PNPM|pnpm_config|YARN|BUN)_\w+"
    r"|(HTTPS?|NO|ALL)_PROXY|(https?|no|all)_proxy",
    re.ASCII,
)
"""The variables of the user's environment that a build gets."""

USER_SLICE = re.compile(r"user-\d+\.slice", re.ASCII)
"""The control group of all sessions of a user. Source: systemd.special(7)."""
KEPT_LOGS = 20
"""Logs kept for each service."""
KEPT_LINES = 2000
"""Lines kept in memory."""
LIMIT = 16 * 2**20
"""The most bytes of one log on disk."""

NICE = 10
_LOW_PRIORITY = '{ echo 1000 > /proc/self/oom_score_adj; } 2>/dev/null; exec nice -n "$0" "$@"'
"""Shell script that executes "$@" as the first process to be killed when memory runs out. Source:
proc_pid_oom_score_adj(5): every process may raise its value, and its children inherit it."""

MOST = 25
"""Lines of an excerpt."""
WIDEST = 300
"""Characters of a line: minified code has no line ends."""
LAST = 6
"""Lines kept of the end, when there are more than fit."""
BEFORE = 2
"""Lines before the first that speaks of trouble."""

ESCAPES = re.compile(
    r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[()][A-Z0-9]|[\x00-\x08\x0e-\x1f]"
)
TROUBLE = re.compile(
    r"\b(\w*error|errors|failed|failure|cannot|could not|not found|no matching|unsatisfiable"
    r"|fatal|no solution|traceback|\w*exception|unexpected|denied|refused|killed|out of memory)\b"
    r"|[✗✘✖×❌]|ERR!",  # noqa: RUF001 - the crosses that tools print
    re.IGNORECASE,
)
HARMLESS = re.compile(
    r"\b(0|no) (errors?|failed|failures?|vulnerabilities)\b|^npm warn|^\s*warning\b|\bdeprecated\b",
    re.IGNORECASE,
)
NOISE = re.compile(
    r"^npm (error|ERR!)( \d+)?\s*$"
    r"|^npm (error|ERR!) \d+ (Note that you can also install from a|tarball, folder, http url)"
    r"|^npm (error|ERR!) (A complete log of this run|code ELIFECYCLE|errno\b|Lifecycle script"
    r"|path\b|command\b|workspace\b|location\b|in workspace|at location)"
    r"|_logs/\S*-debug-\d+\.log"
    r"|^npm (notice|warn)\b"
    r"|^\[notice\]"
    r"|^\s+at .*(\(node:internal/| node:internal/|/node_modules/)"
    r"|^Using (CPython|Python) .* (environment at|interpreter at)"
)
USAGE = re.compile(r"^npm (error|ERR!) (Clean install a project|Usage:)")
"""From here on npm explains its options."""


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
    counter = innermost_counter(memory_groups(os.getpid())) or MACHINE
    kills = oom_kills(counter)
    try:
        log.begin(arguments)
        command = _with_low_priority(arguments, environ)
        status = run_lines(command, environ, log.write, deadline=until, folder=folder)
    except TimeoutError as error:
        raise BuildError(
            f"{doing} timed out and was stopped.",
            log=log.path,
            detail="\n".join(list(log.lines)[-10:]) or None,
            hint="Increase `build: {timeout: ...}` of the service. A command that waits for input "
            "or watches files never ends.",
        ) from error
    except OSError as error:
        if error.errno in FULL:
            raise _disk_full(doing) from error
        raise BuildError(
            f"{doing} failed: {arguments[0]} cannot be started ({error.strerror or error}).",
            log=log.path,
        ) from error
    if status != 0:
        is_killed = kills is not None and (oom_kills(counter) or 0) > kills
        raise _failure(status, log, doing, is_killed=is_killed)


def _with_low_priority(arguments: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    """Return a command with low priority; the same command if its program is not found."""
    if shutil.which(arguments[0], path=environ.get("PATH", os.defpath)) is None:
        return list(arguments)
    return ["/bin/sh", "-c", _LOW_PRIORITY, str(NICE), *arguments]


def _failure(
    status: int, log: BuildLog, doing: str, *, is_killed: bool
) -> BuildError | NoSpaceError:
    lines = list(log.lines)
    if any("No space left on device" in line or "ENOSPC" in line for line in lines):
        return _disk_full(doing)
    how = f"exit status {status}"
    if status < 0:
        with contextlib.suppress(ValueError):
            how = f"ended by {signal.Signals(-status).name}"
    hint = None
    if is_killed:
        groups = memory_groups(os.getpid())
        how += f"; the kernel killed a process because memory ran out; {memory_limit(groups)}"
        hint = (
            f"Nothing was deployed. Add memory or swap, {_increase(groups)}reduce the parallel "
            "processes of the build, or build on another machine with `lapwing ship`."
        )
    elif -status == signal.SIGKILL or status == 128 + signal.SIGKILL:
        hint = "The machine may be out of memory."
    return BuildError(
        f"{doing} failed ({how}).", log=log.path, detail=excerpt(lines) or None, hint=hint
    )


def _increase(groups: Sequence[Path]) -> str:
    """Say how to increase the limit of memory; nothing where there is none.

    A property of a slice is set at once and kept. Source: systemctl(1), "set-property".
    """
    _, group = lowest_limit(groups)
    if group is None:
        return ""
    if not USER_SLICE.fullmatch(group.name):
        return "increase the limit, "
    return f"increase the limit (as root: `systemctl set-property {group.name} MemoryMax=90%`), "


def _disk_full(doing: str) -> NoSpaceError:
    return NoSpaceError(
        f"{doing} failed: the disk is full. The build was undone.",
        hint="Free some space and try again.",
    )


class BuildLog:
    """The log of one build, 0600."""

    def __init__(
        self,
        path: Path,
        on_line: Callable[[str], None] | None = None,
        masked: Iterable[str] = (),
    ) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._on_line = on_line
        self._masked = tuple(masked)
        self._left = LIMIT
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)

    def begin(self, command: Iterable[str]) -> None:
        """Start a command of the build: `lines` are its output from here."""
        self.write("$ " + " ".join(command))
        self.lines.clear()

    def write(self, line: str) -> None:
        """Add a line, masked."""
        line = mask(line, self._masked)
        self.lines.append(line)
        data = line.encode(errors="replace") + b"\n"
        if self._left > 0:
            self._left -= len(data)
            self._file.write(data if self._left > 0 else b"(truncated: the log is too large)\n")
        if self._on_line is not None:
            self._on_line(line)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_log(
    folder: Path,
    release: str,
    on_line: Callable[[str], None] | None,
    environ: Mapping[str, str],
    secrets: Iterable[str] = (),
) -> BuildLog:
    """Create a log in a service's folder of logs, and remove the oldest ones.

    The credentials in `environ`, the environment of the build, and the values of its variables
    `secrets` are masked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in sorted(folder.glob("*.log"))[: -KEPT_LOGS + 1]:
        old.unlink(missing_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    masked = credentials(environ) | {environ[name] for name in secrets}
    return BuildLog(folder / f"{stamp}-{release}.log", on_line, masked)


def credentials(environ: Mapping[str, str]) -> set[str]:
    """Return the values that must not be shown.

    These are the values of variables with the name of a secret, and the passwords in URLs.
    """
    found: set[str] = set()
    for name, value in environ.items():
        if is_secret_name(name):
            found.update(value.splitlines())
        found.update(URL_PASSWORD.findall(value))
    return {value for value in found if len(value) >= 4}


def excerpt(lines: Sequence[str], most: int = MOST) -> str:
    """At most `most` lines of a build's output: the first that tell of trouble, in context."""
    telling = [line for line in map(_clean, lines) if line.strip() and not NOISE.search(line)]
    usage = next((i for i, line in enumerate(telling) if USAGE.search(line)), None)
    telling = telling[:usage]
    first = next((i for i, line in enumerate(telling) if _tells(line)), None)
    if first is None:
        return "\n".join(telling[-most:])
    rest = telling[max(0, first - BEFORE) :]
    if len(rest) > most:
        rest = [*rest[: most - LAST - 1], "...", *rest[-LAST:]]
    return "\n".join(rest)


def _tells(line: str) -> bool:
    return TROUBLE.search(line) is not None and HARMLESS.search(line) is None


def _clean(line: str) -> str:
    """A line as a terminal leaves it: no colours, and what a carriage return wrote over is gone."""
    shown = ESCAPES.sub("", line.rstrip("\r").rsplit("\r", 1)[-1]).rstrip()
    return shown if len(shown) <= WIDEST else shown[:WIDEST] + " ..."
