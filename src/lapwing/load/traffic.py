"""The kinds of traffic: one function each, which makes one request or one short conversation.

    new         a new connection for each request
    keep-alive  one connection, request after request
    slow        a long request: the server responds late, or the body is sent piece by piece
    body        what is sent is compared with the response: an echo, or create, read, delete
    page        a page as a browser loads it: the HTML, then each file of /assets/ that it names
    events      server-sent events, read for a given time
    websocket   numbered messages, each of which has to be echoed

A `Worker` calls the function again and again. What a function observes goes into an `Exchange`,
which is recorded whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Literal

import msgspec

from lapwing.load.connection import ClosedEarly, Connection, RequestFailed, Response, Target
from lapwing.load.record import Exchange, Kind, now
from lapwing.load.websocket import Closed, WebSocket

SLOW_BODY_PIECES = 20
ASSETS = re.compile(r'(?:src|href)="(/assets/[^"]+)"')
PAUSE_AFTER_FAILURE_S = 0.05
"""The least pause of a worker after a failure, so that an outage does not cause a request storm."""
WRONG_BODY = "the response does not match what was sent"


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
    """One client. `add` is called with each exchange; the worker ends soon after `stop` is set."""

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
        self._failed = False

    async def run(self, delay: float = 0.0) -> None:
        """Make requests until `stop` is set; the first after `delay` seconds."""
        await self.pause(delay)
        pace = 0.0 if self.traffic.kind == "websocket" else self.traffic.interval
        try:
            while not self.stop.is_set():
                began = now()
                self._failed = False
                await KINDS[self.traffic.kind](self)
                least = PAUSE_AFTER_FAILURE_S if self._failed else 0.0
                await self.pause(max(pace - (now() - began), least))
        finally:
            self.drop()

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
            self._failed = True
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


async def new(worker: Worker) -> None:
    """Make one request on a new connection."""
    with worker.exchange() as note:
        async with worker.connection() as connection:
            await worker.send(connection, note, "GET", worker.traffic.path, {"Connection": "close"})


async def keep_alive(worker: Worker) -> None:
    """Make the next request on the kept connection."""
    await worker.send_kept("GET", worker.traffic.path)


async def slow(worker: Worker) -> None:
    """Make a long request on a new connection."""
    traffic = worker.traffic
    with worker.exchange() as note:
        async with worker.connection() as connection:
            connection.read_timeout = traffic.quiet
            if not traffic.body:
                await worker.send(connection, note, "GET", traffic.path)
                return
            data = _body(traffic)
            step = -(-len(data) // SLOW_BODY_PIECES)
            note.sent = now()
            headers = {"Content-Type": traffic.content_type}
            await connection.start("POST", traffic.path, headers, len(data))
            for at in range(0, len(data), step):
                await connection.send(data[at : at + step])
                await asyncio.sleep(traffic.seconds / SLOW_BODY_PIECES)
            response = await connection.response()
            worker.head(note, response.status, response.headers)
            returned = await response.read()
            check_status(response)
            if returned != data:
                raise RequestFailed(WRONG_BODY)


async def body(worker: Worker) -> None:
    """Send a body and check that it arrived."""
    traffic = worker.traffic
    data = _body(traffic)
    headers = {"Content-Type": traffic.content_type}
    result = await worker.send_kept("POST", traffic.path, headers, data)
    if result is None:
        return
    response, returned = result
    if traffic.check == "echo":
        _check_body(worker, response, returned == data)
        return
    location = response.headers.get("location")
    _check_body(worker, response, response.status == 201 and location is not None)
    if location is None or (result := await worker.send_kept("GET", location)) is None:
        return
    response, returned = result
    _check_body(worker, response, _contains(returned, data))
    condition = {"If-Match": tag} if (tag := response.headers.get("etag")) else {}
    await worker.send_kept("DELETE", location, condition)


def _check_body(worker: Worker, response: Response, matches: bool) -> None:
    """Record a response that arrived in time but has a wrong body."""
    if not matches:
        with worker.exchange() as note:
            worker.head(note, response.status, response.headers)
            raise RequestFailed(WRONG_BODY)


async def page(worker: Worker) -> None:
    """Load a page and then each of the files that it names."""
    result = await worker.send_kept("GET", worker.traffic.path)
    if result is None:
        return
    for asset in dict.fromkeys(ASSETS.findall(result[1].decode("utf-8", "replace"))):
        await worker.send_kept("GET", asset)


async def events(worker: Worker) -> None:
    """Read a stream of events until its time is over or the server ends it properly."""
    with worker.exchange() as note:
        async with worker.connection() as connection:
            connection.read_timeout = worker.traffic.quiet
            note.sent = now()
            headers = {"Accept": "text/event-stream"}
            response = await connection.request("GET", worker.traffic.path, headers)
            worker.head(note, response.status, response.headers)
            check_status(response)

            async def listen() -> None:
                async for piece in response.pieces():
                    note.messages += piece.count(b"\ndata:") + piece.startswith(b"data:")

            await _until_time_over(worker, note, listen())


async def echo(worker: Worker) -> None:
    """Talk on a WebSocket whose server echoes every message, and close it properly."""
    with worker.exchange() as note:
        async with worker.connection() as connection:
            connection.read_timeout = worker.traffic.quiet
            note.sent = now()
            websocket = WebSocket(connection, worker.traffic.path)
            response = await websocket.connect()
            worker.head(note, response.status_code, response.headers)
            websocket.check()

            async def talk() -> None:
                for number in itertools.count():
                    await websocket.send(f"message {number}")
                    if await websocket.receive() != f"message {number}":
                        raise RequestFailed("another message was echoed")
                    note.messages += 1
                    await asyncio.sleep(worker.traffic.interval)

            try:
                await _until_time_over(worker, note, talk())
            except Closed:
                note.ended_by = "server"
                return
            await websocket.close()


async def _until_time_over(worker: Worker, note: Exchange, work: Awaitable[None]) -> None:
    """Do the work of a stream until the time of the traffic is over or the work ends."""
    task = asyncio.ensure_future(work)
    time_over = asyncio.create_task(worker.pause(worker.traffic.seconds))
    try:
        await asyncio.wait({task, time_over}, return_when=asyncio.FIRST_COMPLETED)
        note.ended_by = "server" if task.done() else "client"
    finally:
        time_over.cancel()
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _body(traffic: Traffic) -> bytes:
    return traffic.body.replace("{unique}", f"{next(_NUMBERS):x}").encode()


_NUMBERS = itertools.count(int(now() * 1000) << 8)


def _contains(returned: bytes, sent: bytes) -> bool:
    """Return whether a JSON object has all the fields that were sent."""
    try:
        wanted, found = json.loads(sent), json.loads(returned)
    except ValueError:
        return False
    return isinstance(found, dict) and wanted.items() <= found.items()


KINDS: dict[Kind, Callable[[Worker], Awaitable[None]]] = {
    "new": new,
    "keep-alive": keep_alive,
    "slow": slow,
    "body": body,
    "page": page,
    "events": events,
    "websocket": echo,
}
