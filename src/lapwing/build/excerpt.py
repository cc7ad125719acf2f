"""The part of a build's output that tells why it failed. Pure.

Tools print the cause first and its consequences after, and end with advice about themselves. So the
excerpt begins at the first line that speaks of trouble, with a little of what came before, and
leaves out what says nothing about the cause. Of a long one the end is kept too, where a traceback
names its exception. Without such a line it is the end of the output.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

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
