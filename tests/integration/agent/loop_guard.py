"""Records, in a process of its own, what blocks its event loop. Installed as `sitecustomize`.

Two checks, one line of JSON for each finding in the file LOOP_GUARD:

`call`   a primitive that can block for long (sleep, fsync, wait, lock, copy, removal of a tree,
         scan of /proc) was called while the event loop was running in the same thread, however
         short it was.
`slow`   one callback took longer than LIMIT_S. Time in which the thread was ready to run and had
         no CPU (`run_delay` of schedstat, proc(5)) is not counted: it belongs to other processes.

Calls of the same primitives in other threads are counted, to show that the check sees them.
"""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import functools
import json
import os
import shutil
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

LIMIT_S = 0.1
write_line = functools.partial(
    os.write, os.open(os.environ["LOOP_GUARD"], os.O_WRONLY | os.O_APPEND)
)
elsewhere: Counter[str] = Counter()


def record(kind: str, **facts: Any) -> None:
    """Append a finding."""
    write_line(json.dumps({"kind": kind, **facts}).encode() + b"\n")


def guard(owner: Any, name: str, blocks: Callable[..., bool] = lambda *_a, **_k: True) -> None:
    """Record calls of `owner.name` in the thread of a running event loop."""
    original = getattr(owner, name)
    label = f"{getattr(owner, '__qualname__', owner.__name__)}.{name}"

    @functools.wraps(original)
    def guarded(*arguments: Any, **options: Any) -> Any:
        if blocks(*arguments, **options):
            if asyncio._get_running_loop() is None:
                elsewhere[label] += 1
            else:
                record("call", name=label, stack=traceback.format_stack(limit=8)[:-1])
        return original(*arguments, **options)

    setattr(owner, name, guarded)


def run_delay(path: str = "/proc/thread-self/schedstat") -> Callable[[], float]:
    """Return a function for the seconds that this thread has waited for a CPU."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return lambda: 0.0
    return lambda: int(os.pread(descriptor, 64, 0).split()[1]) / 1e9


def guard_callbacks() -> None:
    """Record callbacks of the event loop that take too long."""
    original = asyncio.events.Handle._run
    waited = run_delay()

    def run(handle: asyncio.events.Handle) -> None:
        began, before = time.monotonic(), waited()
        try:
            original(handle)
        finally:
            seconds = time.monotonic() - began
            if seconds > LIMIT_S and (blocked := seconds - (waited() - before)) > LIMIT_S:
                record("slow", seconds=round(blocked, 3), callback=repr(handle))

    asyncio.events.Handle._run = run  # type: ignore[method-assign]


guard(time, "sleep")
guard(os, "fsync")
guard(os, "waitpid", lambda _pid, options: not options & os.WNOHANG)
guard(os, "scandir", lambda path=".": str(path) == "/proc")
guard(fcntl, "flock", lambda _file, operation: not operation & fcntl.LOCK_NB)
guard(shutil, "rmtree")
guard(shutil, "copyfile")
guard(subprocess, "run")
guard(subprocess.Popen, "wait")
guard(subprocess.Popen, "communicate")
guard_callbacks()
atexit.register(lambda: record("end", elsewhere=elsewhere))
