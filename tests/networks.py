"""Networks of tests: namespaces, each with a separate loopback interface.

What creates interfaces runs in one, because a browser of another test ends its requests when the
interfaces of this machine change (ERR_NETWORK_CHANGED). A namespace is that of a thread and of
what it starts.

Source: network_namespaces(7), setns(2), unshare(2); Python has both calls from version 3.12 on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def network_of(process: int) -> Iterator[None]:
    """Let this thread, and what it starts, use the network of a process."""
    with _returning(), Path(f"/proc/{process}/ns/net").open() as there:
        _call("setns", there.fileno(), CLONE_NEWNET)
        yield


@contextlib.contextmanager
def private_network() -> Iterator[None]:
    """Let this thread, and what it starts, use a new network. Raises OSError."""
    with _returning():
        _call("unshare", CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield


@contextlib.contextmanager
def _returning() -> Iterator[None]:
    with Path("/proc/thread-self/ns/net").open() as before:
        try:
            yield
        finally:
            _call("setns", before.fileno(), CLONE_NEWNET)


def _call(name: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
