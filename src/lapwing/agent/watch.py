"""Hearing that files in some folders were replaced: inotify where there is one, else patience.

A watch is armed before its owner looks, so nothing that happens in between is missed, and an idle
owner costs nothing. It tells only that something moved, never what: the owner looks for itself, and
looks once a second anyway, so a folder that is replaced, or a file system without inotify, delays
it and no more. Source for constants and layout: inotify(7).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

MOVED_TO, CREATE, DELETE, CLOSE_WRITE = 0x80, 0x100, 0x200, 0x8
MASK = MOVED_TO | CREATE | DELETE | CLOSE_WRITE
PATIENCE = 0.05
"""Seconds between two looks where the system has no inotify."""


class Watch:
    """Watches the files directly in `folders`. Belongs to one event loop; `close` it."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = tuple(folders)
        self._moved = asyncio.Event()
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor: int | None = None
        with contextlib.suppress(AttributeError):
            found = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            self._descriptor = found if found >= 0 else None
        if self._descriptor is not None:
            asyncio.get_running_loop().add_reader(self._descriptor, self._hear)

    def arm(self) -> None:
        """Watch the folders as they are now. Doing it again does no harm; one that is missing is
        left out."""
        if self._descriptor is not None:
            for folder in self._folders:
                self._libc.inotify_add_watch(self._descriptor, os.fsencode(folder), MASK)

    async def moved(self, timeout: float) -> None:
        """Return when something moved since the last call, or after `timeout` seconds."""
        if self._descriptor is None:
            await asyncio.sleep(min(timeout, PATIENCE))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._moved.wait()
        self._moved.clear()

    def close(self) -> None:
        """Stop watching."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    def _hear(self) -> None:
        assert self._descriptor is not None
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, 65536):
                pass
        self._moved.set()
