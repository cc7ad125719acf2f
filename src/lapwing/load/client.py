"""Run a plan of traffic: in this event loop, or in a separate process.

A separate process has its own event loop: a build or a deployment in the caller does not delay
requests. The plan is read from standard input, exchanges are written as lines of JSON to a file.
The client stops at the end of standard input, so it also ends when its caller is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import IO

import msgspec

from lapwing.errors import LapwingError
from lapwing.load.connection import Target
from lapwing.load.record import Exchange, Kind, Ledger
from lapwing.load.traffic import run
from lapwing.load.worker import Traffic, Worker

FLUSH_INTERVAL_S = 0.05
"""Time between two writes of the record."""


class LoadError(LapwingError):
    """The load client itself failed. Nothing is known about the service."""

    code = "load"


class Plan(msgspec.Struct, frozen=True):
    """The traffic to a target."""

    target: Target
    traffic: tuple[Traffic, ...]

    @property
    def kinds(self) -> set[Kind]:
        """The kinds of traffic in it."""
        return {t.kind for t in self.traffic}


async def drive(plan: Plan, add: Callable[[Exchange], None], stop: asyncio.Event) -> None:
    """Run a plan in this event loop until `stop` is set and requests in flight have ended.

    The workers of one kind begin one after another, evenly over their interval.
    """
    context = plan.target.tls()
    async with asyncio.TaskGroup() as group:
        for traffic in plan.traffic:
            for number in range(traffic.workers):
                worker = Worker(plan.target, context, traffic, add, stop)
                group.create_task(run(worker, traffic.interval * number / traffic.workers))


class Client:
    """A load client in a separate process."""

    def __init__(self, plan: Plan, record: Path) -> None:
        self._plan = plan
        self._record = record
        record.touch()
        self._log = record.with_suffix(".log")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lapwing.load", str(record)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches only the caller, which stops us.
            )
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(msgspec.json.encode(plan) + b"\n")
            stdin.flush()

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise LoadError if the client has crashed."""
        if self._process.poll() not in (None, 0):
            log = self._log.read_text(errors="replace")
            raise LoadError("The load client crashed.", detail=log[-2000:])

    def ledger(self) -> Ledger:
        """Return the exchanges recorded so far. Raises LoadError if the client has crashed."""
        self.check()
        lines = self._record.read_bytes().split(b"\n")[:-1]
        return Ledger(msgspec.json.decode(line, type=Exchange) for line in lines)

    def wait_for_answers(
        self, kinds: Collection[Kind] | None = None, timeout: float = 60.0
    ) -> None:
        """Wait until a request of each kind has a response (of the short kinds by default).

        Raises LoadError after `timeout` seconds.
        """
        wanted = set(kinds) if kinds is not None else self._plan.kinds - {"slow", *STREAMS}
        until = time.monotonic() + timeout
        while True:
            missing = wanted - {e.kind for e in self.ledger().exchanges if e.answered is not None}
            if not missing:
                return
            if time.monotonic() > until:
                raise LoadError(f"No response to requests of kind {', '.join(sorted(missing))}.")
            time.sleep(FLUSH_INTERVAL_S)

    def stop(self) -> Ledger:
        """Stop after the requests in flight and return all exchanges. May be called again.

        Raises LoadError if the client has crashed or does not end.
        """
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.close()
        longest = max((t.seconds + t.quiet for t in self._plan.traffic), default=0.0)
        try:
            self._process.wait(longest + self._plan.target.timeout + 10.0)
        except subprocess.TimeoutExpired:
            self.kill()
            raise LoadError("The load client did not end.") from None
        return self.ledger()

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()


STREAMS: frozenset[Kind] = frozenset({"events", "websocket"})


@contextlib.contextmanager
def running(plan: Plan, folder: Path | None = None) -> Iterator[Client]:
    """Run a load client for the block. `folder` keeps its record."""
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lapwing-load-")))
        client = Client(plan, folder / "exchanges.jsonl")
        try:
            yield client
            client.stop()
        except BaseException:
            client.kill()
            raise


def main(record: Path, plan_from: IO[bytes]) -> int:
    """Run the process of a `Client` and return its exit status."""
    plan = msgspec.json.decode(plan_from.readline(), type=Plan)
    gc.freeze()
    with record.open("ab", buffering=0) as file:
        asyncio.run(_record(plan, file, plan_from))
    return 0


async def _record(plan: Plan, file: IO[bytes], until: IO[bytes]) -> None:
    lines: list[bytes] = []
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)

    def read() -> None:
        if not os.read(until.fileno(), 4096):
            loop.remove_reader(until.fileno())
            stop.set()

    def flush() -> None:
        if lines:
            file.write(b"".join(lines))
            lines.clear()

    async def flush_often() -> None:
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            flush()

    loop.add_reader(until.fileno(), read)
    flushing = asyncio.create_task(flush_often())
    try:
        await drive(plan, lambda e: lines.append(msgspec.json.encode(e) + b"\n"), stop)
    finally:
        flushing.cancel()
        flush()
