"""The output of a container, copied from the engine to the log of its replica.

The engine keeps the output, so none is lost while no agent runs. The time of the last copied line
is the modification time of the log: from there an agent continues. Docker states times in
nanoseconds. Podman's interface states seconds, so lines of one second may be copied twice.

Sources: Docker Engine API, "Get container logs"; Podman's compatible API, `compat/containers/logs`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from lapwing.agent import logs, processes
from lapwing.agent.engine import Engine, frames
from lapwing.agent.processes import Identity
from lapwing.errors import EngineError
from lapwing.system.timestamps import nanoseconds

FOLLOW_RETRY_S = 1.0
"""Time between two attempts to read the output of a running container."""


async def copy(engine: Callable[[], Engine], identity: Identity, name: str, file: Path) -> None:
    """Copy the output of a container until it ends; connect again if the engine restarts."""
    while True:
        try:
            async with engine().logs(name, _last_copied(file)) as stream:
                async for text, when in _lines(stream):
                    logs.append(file, text)
                    with contextlib.suppress(OSError):
                        os.utime(file, ns=(when, when))
            return
        except EngineError:
            if not processes.alive(identity):
                return
            await asyncio.sleep(FOLLOW_RETRY_S)


async def _lines(stream: AsyncIterator[bytes]) -> AsyncIterator[tuple[bytes, int]]:
    """Yield the output in each part of a stream, with the time of its last line in nanoseconds.

    A frame contains a time, then text.
    """
    rest = b""
    async for data in stream:
        found, rest = frames(rest + data)
        text, stamp = bytearray(), b""
        for _, content in found:
            stamp, _, line = content.partition(b" ")
            text += line
        if text:
            yield bytes(text), _time(stamp.decode("ascii", "replace"))


def _time(stamp: str) -> int:
    """Return the Unix time of a timestamp in nanoseconds; 0 if invalid."""
    try:
        return nanoseconds(stamp)
    except ValueError:
        return 0


def _last_copied(file: Path) -> str:
    """Return the time after the last copied line, in seconds, as the API takes it."""
    try:
        after = file.stat().st_mtime_ns + 1
    except OSError:
        return "0"
    return f"{after // 10**9}.{after % 10**9:09}"
