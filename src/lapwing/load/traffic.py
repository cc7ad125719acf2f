"""Kinds of traffic: one function each, which makes one request (or one small conversation).

    new         a new connection for each request
    keep-alive  one connection, request after request
    slow        a request that lasts: the server takes its time, or a body is sent bit by bit
    body        what is sent is looked at when it comes back: an echo, or create, read, delete
    page        a page as a browser gets it: the HTML, then each file of /assets/ that it names
    events      server-sent events, read until the client has had enough
    websocket   numbered messages, each of which has to come back

A `Worker` calls the function again and again. What a function learns goes into a `Note`, which
becomes an `Exchange` of the record whatever happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from lapwing.load import websocket
from lapwing.load.record import Exchange, Kind, now
from lapwing.load.wire import ClosedEarly, Connection, Failed, Response, Target

PIECES = 20
"""Into how many pieces a slow body is cut."""
ASSETS = re.compile(r'(?:src|href)="(/assets/[^"]+)"')
AFTER_FAILURE = 0.05
"""Seconds that a worker waits after a failure at least, so that an outage is not a storm."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask, how often, by how many at once.

    `interval` is the time in seconds from the start of one request of a worker to the start of its
    next (or between the messages of a websocket). `seconds` is how long a slow body takes to send,
    or how long the client stays on a stream. `quiet` is how many seconds a slow request or a
    stream may be silent; elsewhere `Target.timeout` counts.

    `body` is what is sent; `{unique}` in it becomes another text each time. `check` says what has
    to come back: `echo` the same bytes; `rest` 201 with a Location which gives the same fields and
    can be deleted. `version` is a regular expression whose first group is the version, for answers
    that name it in the body and not in a header.
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


@dataclass(slots=True)
class Note:
    """An exchange that is still going on."""

    began: float = field(default_factory=now)
    sent: float | None = None
    answered: float | None = None
    status: int | None = None
    version: str | None = None
    failure: str | None = None
    raced: bool = False
    ended_by: Literal["client", "server"] | None = None
    messages: int = 0

    def head(self, response: Response) -> None:
        """Write down the head of an answer."""
        self.answered = now()
        self.status = response.status
        self.version = response.headers.get(response.connection.target.version_header)


class Worker:
    """One client. `add` takes each exchange; the worker ends soon after `stop` is set."""

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
        """Make requests until told to stop; the first after `delay` seconds."""
        await self.pause(delay)
        pace = 0.0 if self.traffic.kind == "websocket" else self.traffic.interval
        try:
            while not self.stop.is_set():
                began = now()
                self._failed = False
                await KINDS[self.traffic.kind](self)
                pause = max(pace - (now() - began), AFTER_FAILURE if self._failed else 0.0)
                await self.pause(pause)
        finally:
            self.drop()

    async def pause(self, seconds: float) -> None:
        """Wait, or return at once when it is time to stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(seconds, 0.0)):
                await self.stop.wait()

    @contextlib.contextmanager
    def exchange(self) -> Iterator[Note]:
        """An exchange that is written down when the block ends, as a failure if it raises."""
        note = Note()
        try:
            yield note
        except Failed as why:
            note.failure = str(why)
            self._failed = True
            self.drop()
        self._add(
            Exchange(
                kind=self.traffic.kind,
                began=note.began,
                sent=note.sent or now(),
                ended=now(),
                answered=note.answered,
                status=note.status,
                version=note.version,
                failure=note.failure,
                raced=note.raced,
                ended_by=note.ended_by,
                messages=note.messages,
            )
        )

    async def open(self) -> Connection:
        """A new connection. Raises Failed."""
        return await Connection.open(self.target, self._context)

    async def kept(self) -> tuple[Connection, bool]:
        """The kept connection, or a new one where there is none or the server has closed it; and
        whether it was used before. Raises Failed."""
        if self._kept is not None and self._kept.was_closed():
            self.drop()
        if self._kept is not None:
            return self._kept, True
        self._kept = await self.open()
        return self._kept, False

    def drop(self) -> None:
        """Close the kept connection."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    async def ask(
        self,
        connection: Connection,
        note: Note,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[Response, bytes]:
        """One request with its whole answer, which has to be a success. Raises Failed."""
        note.sent = now()
        response = await connection.request(method, path, headers, body)
        note.head(response)
        data = await response.read()
        if not response.keep:
            self.drop()
        if self.traffic.version is not None:
            found = re.search(self.traffic.version, data.decode("utf-8", "replace"))
            note.version = found.group(1) if found else note.version
        succeeded(response)
        return response, data

    async def ask_kept(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> tuple[Response, bytes] | None:
        """One exchange on the kept connection; None if it failed, which is written down. A GET that
        meets a connection which is just being closed is sent again, and both are written down."""
        answer = None
        with self.exchange() as note:
            connection, used = await self.kept()
            try:
                answer = await self.ask(connection, note, method, path, headers, body)
            except ClosedEarly:
                self.drop()
                note.raced = used and method == "GET"
                if not note.raced:
                    raise
        return await self.ask_kept(method, path, headers, body) if note.raced else answer


def succeeded(response: Response) -> None:
    """Raises Failed if the answer is not a success (or a redirection)."""
    if not 200 <= response.status < 400:
        raise Failed(f"status {response.status}")


async def new(worker: Worker) -> None:
    """A new connection for one request."""
    with worker.exchange() as note:
        connection = await worker.open()
        try:
            await worker.ask(connection, note, "GET", worker.traffic.path, {"Connection": "close"})
        finally:
            connection.close()


async def keep_alive(worker: Worker) -> None:
    """The next request on the kept connection."""
    await worker.ask_kept("GET", worker.traffic.path)


async def slow(worker: Worker) -> None:
    """A request that lasts, on a connection of its own."""
    traffic = worker.traffic
    with worker.exchange() as note:
        connection = await worker.open()
        connection.patience = traffic.quiet
        try:
            if not traffic.body:
                await worker.ask(connection, note, "GET", traffic.path)
                return
            data = _body(traffic)
            step = -(-len(data) // PIECES)
            note.sent = now()
            headers = {"Content-Type": traffic.content_type}
            await connection.send_head("POST", traffic.path, headers, len(data))
            for at in range(0, len(data), step):
                await connection.send(data[at : at + step])
                await asyncio.sleep(traffic.seconds / PIECES)
            response = await connection.response("POST")
            note.head(response)
            returned = await response.read()
            succeeded(response)
            if returned != data:
                raise Failed("what was sent did not come back")
        finally:
            connection.close()


async def body(worker: Worker) -> None:
    """Send something, and look whether it arrived."""
    traffic = worker.traffic
    data = _body(traffic)
    headers = {"Content-Type": traffic.content_type}
    answer = await worker.ask_kept("POST", traffic.path, headers, data)
    if answer is None:
        return
    response, returned = answer
    if traffic.check == "echo":
        _complain(worker, response, returned == data)
        return
    location = response.headers.get("location")
    _complain(worker, response, response.status == 201 and location is not None)
    if location is None:
        return
    answer = await worker.ask_kept("GET", location)
    if answer is None:
        return
    response, returned = answer
    _complain(worker, response, _holds(returned, data))
    condition = {"If-Match": tag} if (tag := response.headers.get("etag")) else {}
    await worker.ask_kept("DELETE", location, condition)


def _complain(worker: Worker, response: Response, good: bool) -> None:
    """Write down an answer that came in time but says something wrong."""
    if not good:
        with worker.exchange() as note:
            note.head(response)
            raise Failed("what was sent did not come back")


async def page(worker: Worker) -> None:
    """A page, and then each of the files that it names: all of them have to be there."""
    answer = await worker.ask_kept("GET", worker.traffic.path)
    if answer is None:
        return
    for asset in dict.fromkeys(ASSETS.findall(answer[1].decode("utf-8", "replace"))):
        await worker.ask_kept("GET", asset)


async def events(worker: Worker) -> None:
    """A stream of events; its end has to be said, or be the client's."""
    with worker.exchange() as note:
        connection = await worker.open()
        connection.patience = worker.traffic.quiet
        try:
            note.sent = now()
            headers = {"Accept": "text/event-stream"}
            response = await connection.request("GET", worker.traffic.path, headers)
            note.head(response)
            succeeded(response)

            async def listen() -> None:
                async for piece in response.pieces():
                    note.messages += piece.count(b"\ndata:") + piece.startswith(b"data:")

            await _until_enough(worker, note, listen())
        finally:
            connection.close()


async def echo(worker: Worker) -> None:
    """A websocket on which every message has to come back; its end has to be said."""
    with worker.exchange() as note:
        connection = await worker.open()
        connection.patience = worker.traffic.quiet
        try:
            note.sent = now()
            response = await websocket.connect(connection, worker.traffic.path)
            note.head(response)
            if response.status != 101:
                raise Failed(f"status {response.status} in place of a websocket")

            async def talk() -> None:
                for number in itertools.count():
                    await websocket.send(connection, f"message {number}")
                    if await websocket.receive(connection) != f"message {number}":
                        raise Failed("another message came back")
                    note.messages += 1
                    await asyncio.sleep(worker.traffic.interval)

            try:
                await _until_enough(worker, note, talk())
            except websocket.Closed:
                note.ended_by = "server"
                return
            await websocket.close(connection)
        finally:
            connection.close()


async def _until_enough(worker: Worker, note: Note, work: Awaitable[None]) -> None:
    """Do the work of a stream until the client has had enough of it, or it ends by itself."""
    task = asyncio.ensure_future(work)
    enough = asyncio.create_task(worker.pause(worker.traffic.seconds))
    try:
        await asyncio.wait({task, enough}, return_when=asyncio.FIRST_COMPLETED)
        note.ended_by = "server" if task.done() else "client"
    finally:
        enough.cancel()
        if not task.done():
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _body(traffic: Traffic) -> bytes:
    return traffic.body.replace("{unique}", f"{next(_NUMBERS):x}").encode()


_NUMBERS = itertools.count(int(now() * 1000) << 8)


def _holds(returned: bytes, sent: bytes) -> bool:
    """Whether a JSON object has all the fields that were sent."""
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
