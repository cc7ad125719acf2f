"""Runs the small service by itself, for tests that need no switch."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.installation import free_port

APP = Path(__file__).with_name("app.py")
PATIENCE = 60.0


def source(folder: Path, version: str, prefix: str = "") -> Path:
    """The service as a source to build, in a version; its paths begin with `prefix`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(APP, folder)
    (folder / "VERSION").write_text(version + "\n")
    (folder / "PREFIX").write_text(prefix + "\n")
    (folder / "requirements.txt").write_text("# The standard library is enough.\n")
    return folder


@contextlib.contextmanager
def service(folder: Path, version: str) -> Iterator[int]:
    """The service for as long as the block runs; gives its port."""
    port = free_port()
    arguments = [sys.executable, str(source(folder, version) / "app.py")]
    process = subprocess.Popen(arguments, env={**os.environ, "PORT": str(port)})
    try:
        until(lambda: _open(port))
        yield port
    finally:
        process.terminate()
        process.wait()


def until(holds: Callable[[], bool]) -> None:
    """Return when something holds."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def _open(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
