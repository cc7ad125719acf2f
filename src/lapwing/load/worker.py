"""One client of a load test: what it requests, its kept connection, and the record of exchanges."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Literal

import msgspec

from lapwing.load.connection import ClosedEarly, Connection, RequestFailed, Response, Target
from lapwing.load.record import Exchange, Kind, now


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What to request, how often, and by how many workers.

    `interval` is the time in seconds from the start of one request of a worker to the start of its
    next (or between the messages of a WebSocket). `seconds` is how long a slow body takes to send,
    or how long a stream is read. `quiet` is how many seconds a slow request or a stream may send
    nothing; elsewhere `Target.timeout` counts.

    `body` is what is sent; `{unique}` in it becomes another text each time. `check` states the
    expected response: `echo` the same bytes; `rest` 201 with a Location that returns the same
    fields and can be deleted. `version` is a regular expression whose first group is the version,
    for responses that name it in the body and not in a header.
    """

    kind: Kind
    path: str
    workers: int = 1
    interval: float = 0.0
    seconds: float = 0.0
    quiet: float = 30.0
    body: str = ""
    content_type: str = "application/json"
    check: Literal["echo", "rest"] = "echo"
    version: str | None = None


class Worker:
    """One client, with at most one kept connection. `add` is called with each exchange."""

    def __init__(
        self,
        target: Target,
        context: ssl.SSLContext | None,
        traffic: Traffic,
        add: Callable[[Exchange], None],
        stop: asyncio.Event,
    ) -> None:
        self.target = target
        self.traffic = traffic
        self.stop = stop
        self._context = context
        self._add = add
        self._kept: Connection | None = None
        self.failed = False

    async def pause(self, seconds: float) -> None:
        """Wait for some seconds, or until `stop` is set."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self.stop.wait()

    @contextlib.contextmanager
    def exchange(self) -> Iterator[Exchange]:
        """Record an exchange when the block ends, as a failure if RequestFailed is raised."""
        note = Exchange(kind=self.traffic.kind, began=now())
        try:
            yield note
        except RequestFailed as reason:
            note.failure = str(reason)
            self.failed = True
            self.drop()
        note.ended = now()
        note.sent = note.sent or note.ended
        self._add(note)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Open a connection for the block. Raises RequestFailed."""
        connection = await Connection.open(self.target, self._context)
        try:
            yield connection
        finally:
            connection.close()

    async def kept(self) -> tuple[Connection, bool]:
        """Return the kept connection and whether it was used before.

        Opens a new one if there is none or the server has closed it. Raises RequestFailed.
        """
        if self._kept is not None and self._kept.was_closed():
            self.drop()
        if self._kept is not None:
            return self._kept, True
        self._kept = await Connection.open(self.target, self._context)
        return self._kept, False

    def drop(self) -> None:
        """Close the kept connection."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def head(self, note: Exchange, status: int, headers: Mapping[str, str]) -> None:
        """Record the head of a response."""
        note.answered = now()
        note.status = status
        note.version = headers.get(self.target.version_header)

    async def send(
        self,
        connection: Connection,
        note: Exchange,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[Response, bytes]:
        """Send a request and read its response, which has to be a success. Raises RequestFailed."""
        note.sent = now()
        response = await connection.request(method, path, headers, body)
        self.head(note, response.status, response.headers)
        data = await response.read()
        if not connection.reusable:
            self.drop()
        if self.traffic.version is not None:
            found = re.search(self.traffic.version, data.decode("utf-8", "replace"))
            note.version = found.group(1) if found else note.version
        check_status(response)
        return response, data

    async def send_kept(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[Response, bytes] | None:
        """Make one exchange on the kept connection; return None if it failed.

        A GET whose connection the server closes at that moment is sent again; both are recorded.
        """
        result = None
        with self.exchange() as note:
            connection, used = await self.kept()
            try:
                result = await self.send(connection, note, method, path, headers, body)
            except ClosedEarly:
                self.drop()
                note.raced = used and method == "GET"
                if not note.raced:
                    raise
        return await self.send_kept(method, path, headers, body) if note.raced else result


def check_status(response: Response) -> None:
    """Raise RequestFailed unless the response is a success or a redirection."""
    if not 200 <= response.status < 400:
        raise RequestFailed(f"status {response.status}")
