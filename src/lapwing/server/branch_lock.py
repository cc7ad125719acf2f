"""A lock for the environment of a branch, so that its removal waits for its deployments.

It is held by `lapwing receive` on a server, and by the commands on a machine without one.

A pull request can be closed while its deployment still builds. If the removal did not wait, the
deployment would then commit, and the environment would exist again. Deployments share the lock.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from lapwing.errors import ServerError
from lapwing.system import locks

TIMEOUT_S = 900.0
POLL_S = 0.2


@contextlib.contextmanager
def hold(sources: Path, environment: str, *, removal: bool) -> Iterator[Path]:
    """Hold the lock for a deployment or a removal, which may then remove the file that is yielded.

    Raises ServerError if the other one does not end in time.
    """
    file = sources / f".{environment}.lock"
    other = "deployed" if removal else "removed"
    until = time.monotonic() + TIMEOUT_S
    is_waiting = False
    while True:
        try:
            descriptor = locks.acquire(file, wait=False, shared=not removal)
            break
        except BlockingIOError as error:
            if time.monotonic() >= until:
                raise ServerError(
                    f"{environment} was still being {other} after {TIMEOUT_S:.0f} s.",
                    hint="Nothing was changed. Run the command again when that has ended.",
                ) from error
        if not is_waiting:
            print(f"Waiting: {environment} is being {other}.", file=sys.stderr, flush=True)
        is_waiting = True
        time.sleep(POLL_S)
    try:
        yield file
    finally:
        os.close(descriptor)
