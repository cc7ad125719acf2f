"""The live view: every open page hears of every change, through server-sent events.

A page may be connected to another process, or during a deployment to another release, than the
one that wrote. So a stream does not wait for its own process's writes: it watches the store's
change counter. However many streams a process has, it asks the store once per `INTERVAL`.

An event is only the counter; the page then reads what it shows. The counter is the event id, so
a browser that reconnects tells what it has seen, and misses nothing.

A stream ends by itself after `MAX_AGE`, and at once when the process stops; the browser connects
again within a second. That is what lets an old release go away after a deployment.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

INTERVAL = 0.25
HEARTBEAT = 10.0
MAX_AGE = 300.0


class FullError(Exception):
    """This process has as many streams as it may have."""


class Live:
    """The streams of one process. `read` gives the change counter. The server that runs the app
    sets `limit` (streams at the same time) and `closing` (whether it wants to stop)."""

    def __init__(self, read: Callable[[], int]) -> None:
        self.limit = 8
        self.closing: Callable[[], bool] = lambda: False
        self._read = read
        self._lock = threading.Lock()
        self._streams = 0
        self._counter = 0
        self._asked = float("-inf")

    def open(self, seen: int | None, max_age: float = MAX_AGE) -> Iterator[str]:
        """A new stream of event texts, for a client that has `seen` that counter. Close it, or
        read it to its end. Raises FullError, and StoreError if the store does not answer now."""
        counter = self._current()
        with self._lock:
            if self._streams >= self.limit:
                raise FullError
            self._streams += 1
        return _Stream(self._events(counter, seen, max_age), self._leave)

    def _events(self, counter: int, seen: int | None, max_age: float) -> Iterator[str]:
        yield "retry: 500\n\n"
        yield _event("hello" if seen in (None, counter) else "change", counter)
        started = said = time.monotonic()
        while not self.closing() and time.monotonic() - started < max_age:
            time.sleep(INTERVAL)
            try:
                newest = self._current()
            except Exception:  # the request that shows the data reports it better
                newest = counter
            if newest != counter:
                counter, said = newest, time.monotonic()
                yield _event("change", counter)
            elif time.monotonic() - said > HEARTBEAT:
                said = time.monotonic()
                yield ": alive\n\n"

    def _current(self) -> int:
        """The counter, at most INTERVAL old."""
        with self._lock:
            if time.monotonic() - self._asked >= INTERVAL:
                self._counter = self._read()
                self._asked = time.monotonic()
            return self._counter

    def _leave(self) -> None:
        with self._lock:
            self._streams -= 1


class _Stream:
    """An iterator that gives back its place exactly once, even if it was never started (a
    generator that was not started runs no `finally`)."""

    def __init__(self, events: Iterator[str], leave: Callable[[], None]) -> None:
        self._events = events
        self._leave: Callable[[], None] | None = leave

    def __iter__(self) -> _Stream:
        return self

    def __next__(self) -> str:
        return next(self._events)

    def close(self) -> None:
        leave, self._leave = self._leave, None
        if leave:
            leave()


def _event(name: str, counter: int) -> str:
    data = json.dumps({"changes": counter})
    return f"id: {counter}\nevent: {name}\ndata: {data}\n\n"
