"""A command in a terminal, which a test reads and types into."""

from __future__ import annotations

import os
import pty
import select
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.deployed import PATIENCE


class Terminal:
    """The terminal of a running command."""

    def __init__(self, pid: int, descriptor: int) -> None:
        self._pid = pid
        self._descriptor = descriptor
        self._shown = bytearray()

    def shows(self, text: bytes) -> None:
        """Wait until the command has written a text."""
        end = time.monotonic() + PATIENCE
        while text not in self._shown:
            assert time.monotonic() < end, self._shown
            if select.select([self._descriptor], [], [], 1)[0]:
                self._shown.extend(os.read(self._descriptor, 4096))

    def type(self, keys: bytes) -> None:
        """Send keys."""
        os.write(self._descriptor, keys)

    def wait(self) -> int:
        """Return the exit status of the command."""
        return os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])


@contextmanager
def terminal(
    arguments: Sequence[str], folder: Path, environ: Mapping[str, str]
) -> Iterator[Terminal]:
    """Run a command in a new terminal."""
    pid, descriptor = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execve(arguments[0], arguments, environ)
    try:
        yield Terminal(pid, descriptor)
    finally:
        os.close(descriptor)
