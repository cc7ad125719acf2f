"""What a peer is: its program, its configuration, how its traffic is switched; and how it is run.

A recipe writes the configuration into a folder and returns the command to run and a function
that makes a version active. Everything else is the same for all: a free port on 127.0.0.1, one
certificate, a separate home, an end by process id.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.installation import free_port

from benchmarks.proxies.contender import Contender, Switched
from lapwing.load.connection import Target
from lapwing.load.record import now

PATIENCE = 60.0
"""Seconds that a program may take to listen, or to end."""


class BenchmarkError(Exception):
    """A program does not do what the measurement needs; names it and quotes its output."""


@dataclass(frozen=True)
class Setting:
    """What a configuration is made from: where to write it, where to listen, the files of the
    certificate and its key, the ports of the backends `a`, `b` and `fast`."""

    folder: Path
    port: int
    certificate: Path
    key: Path
    ports: dict[str, int]


@dataclass(frozen=True)
class Prepared:
    """The command that runs the proxy, and what makes a version active in the running process.
    `change` returns when the proxy has accepted the change."""

    command: list[str]
    change: Callable[[str, int], None]


@dataclass(frozen=True)
class Recipe:
    """A peer. `switched_by` describes how its traffic is switched; `version` are the arguments that
    make its program print its version."""

    name: str
    program: str
    switched_by: str
    version: list[str]
    prepare: Callable[[str, Setting], Prepared]


def find(program: str) -> str | None:
    """The program beside this Python (peers from wheels), else on the PATH."""
    beside = Path(sys.executable).with_name(program)
    return str(beside) if beside.exists() else shutil.which(program)


def version(recipe: Recipe, program: str) -> str:
    """The first line that the program says of its version."""
    done = subprocess.run([program, *recipe.version], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return " ".join(lines[0].split()) if lines else "unknown"


@contextlib.contextmanager
def running(recipe: Recipe, program: str, setting: Setting) -> Iterator[Contender]:
    """A peer for as long as the block runs, with version `a` active."""
    setting.folder.mkdir(parents=True)
    prepared = recipe.prepare(program, setting)
    with process(prepared.command, setting.folder, setting.port) as running:
        prepared.change("a", running.pid)
        active = "a"

        def switch() -> Switched:
            nonlocal active
            old, active = active, "b" if active == "a" else "a"
            began = now()
            prepared.change(active, running.pid)
            return Switched(old, active, began, began, now() - began, "switch")

        yield Contender(
            recipe.name,
            f"{version(recipe, program)}; {recipe.switched_by}",
            Target(
                f"https://localhost:{setting.port}",
                address="127.0.0.1",
                authority=str(setting.certificate),
            ),
            switch,
            lambda: running.pid,
        )


@contextlib.contextmanager
def process(
    command: list[str], folder: Path, port: int, **environ: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A program for as long as the block runs; begins when it listens. What it says goes to a log
    in `folder`, which is its home. Raises BenchmarkError if it ends by itself or never listens."""
    log = folder / "output.log"
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with log.open("wb") as out:
        started = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **home, "XDG_RUNTIME_DIR": str(folder), **environ},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        until = time.monotonic() + PATIENCE
        while not listens(port):
            if started.poll() is not None or time.monotonic() > until:
                raise BenchmarkError(f"{command[0]} does not listen: {log.read_text()[-2000:]}")
            time.sleep(0.02)
        yield started
    finally:
        started.terminate()
        try:
            started.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def listens(port: int) -> bool:
    """Whether something accepts connections on a port of 127.0.0.1."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def replace(path: Path, text: str) -> None:
    """Write a file by a rename, so that nobody reads half of it."""
    new = path.with_name(path.name + ".new")
    new.write_text(text)
    new.rename(path)


def answers(contender: Contender, path: str) -> bool:
    """Whether a GET of a path is answered with 200, over TLS as a client does it."""
    context = ssl.create_default_context(cafile=contender.target.authority)
    host = contender.target.host
    ask = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    try:
        with (
            socket.create_connection(("127.0.0.1", contender.port), 5) as plain,
            context.wrap_socket(plain, server_hostname=host.partition(":")[0]) as wrapped,
        ):
            wrapped.sendall(ask)
            return wrapped.recv(12) == b"HTTP/1.1 200"
    except OSError:
        return False


__all__ = [
    "BenchmarkError",
    "Prepared",
    "Recipe",
    "Setting",
    "answers",
    "find",
    "free_port",
    "process",
    "replace",
    "running",
    "version",
]
