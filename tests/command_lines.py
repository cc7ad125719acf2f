"""The command lines of all processes of this machine, for tests of what may not be in them."""

from __future__ import annotations

import contextlib
from pathlib import Path


def command_lines() -> list[bytes]:
    """What each process was started with, its arguments ended by NUL bytes.

    Processes that end meanwhile are left out. A glob of `[0-9]*/cmdline` would fail for them: Linux
    answers ESRCH there, which pathlib does not expect.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((process / "cmdline").read_bytes())
    return found
