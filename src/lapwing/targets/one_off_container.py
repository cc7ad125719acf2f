"""A one-off command in a container that uses the streams and the terminal of this process.

The engine is asked to attach before the container starts, so no output is lost. With a terminal,
the container gets a TTY of the same size; the local terminal is in raw mode. The container is
removed when the command ends; if this process is killed, the agent removes it.

Source: Docker Engine API, "Attach to a container".
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from lapwing.agent.containers import Containers
from lapwing.agent.engine import READ_BYTES, STDERR, Engine, frames
from lapwing.agent.processes import MARK, Identity, Launch
from lapwing.errors import EngineError
from lapwing.settings import Settings


class Command(Protocol):
    """A running command."""

    def send_signal(self, signal: int, /) -> None:
        """Send it a signal."""


async def run(
    settings: Settings, launch: Launch, begin_with: Callable[[Command], None], terminal: bool
) -> int:
    """Run a command in a container and return its exit status.

    `begin_with` gets the running command; `terminal` is whether it gets a terminal. Raises
    EngineError or ReplicaError.
    """
    containers = Containers(settings)
    try:
        async with containers.created(
            launch,
            Tty=terminal,
            OpenStdin=True,
            StdinOnce=True,
            **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr"), True),
        ) as (engine, name):
            reader, writer = await engine.attach(name)
            await engine.start(name)
        with _raw_terminal() if terminal else contextlib.nullcontext():
            begin_with(_Container(engine, name, asyncio.get_running_loop()))
            return await _use(engine, name, reader, writer, terminal=terminal)
    finally:
        await containers.kill(Identity(0, 0.0), launch.environ[MARK])


async def _use(
    engine: Engine,
    name: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    terminal: bool,
) -> int:
    """Copy the streams until a container has exited; return its exit status."""
    loop = asyncio.get_running_loop()
    waiting = asyncio.create_task(engine.wait(name))
    threading.Thread(target=_send_input, args=(loop, writer), daemon=True).start()
    if terminal:

        async def resize() -> None:
            size = os.get_terminal_size()
            with contextlib.suppress(EngineError):  # It has exited.
                await engine.resize(name, size.lines, size.columns)

        await resize()
        resized = set[asyncio.Task[None]]()
        loop.add_signal_handler(signal.SIGWINCH, lambda: resized.add(loop.create_task(resize())))
    await _copy_output(reader, terminal=terminal)
    return await waiting


@dataclass(frozen=True, slots=True)
class _Container:
    """A running container, for a handler of signals."""

    engine: Engine
    name: str
    loop: asyncio.AbstractEventLoop

    def send_signal(self, number: int, /) -> None:
        """Send a signal to its first process."""
        sending = self.engine.send_signal(self.name, signal.Signals(number).name)
        asyncio.run_coroutine_threadsafe(sending, self.loop)


def _send_input(loop: asyncio.AbstractEventLoop, writer: asyncio.StreamWriter) -> None:
    """Copy the standard input, in a thread: a read from a terminal cannot be cancelled."""

    async def send(data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    with contextlib.suppress(OSError, RuntimeError):  # The container has exited.
        while data := os.read(0, READ_BYTES):
            asyncio.run_coroutine_threadsafe(send(data), loop).result()
        loop.call_soon_threadsafe(writer.write_eof)


async def _copy_output(reader: asyncio.StreamReader, *, terminal: bool) -> None:
    """Copy what a container prints until it exits; without a terminal, it is multiplexed."""
    rest = b""
    while data := await reader.read(READ_BYTES):
        found, rest = ([(0, data)], b"") if terminal else frames(rest + data)
        for stream, content in found:
            target = (sys.stderr if stream == STDERR else sys.stdout).buffer
            target.write(content)
            target.flush()


@contextlib.contextmanager
def _raw_terminal() -> Iterator[None]:
    """Pass every key on instead of handling it."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
