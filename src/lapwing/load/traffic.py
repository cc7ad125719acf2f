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
from collections.abc import Awaitable, Callable

from lapwing.load.connection import RequestFailed, Response
from lapwing.load.record import Exchange, Kind, now
from lapwing.load.websocket import Closed, WebSocket
from lapwing.load.worker import Traffic, Worker, check_status

SLOW_BODY_PIECES = 20
ASSETS = re.compile(r'(?:src|href)="(/assets/[^"]+)"')
PAUSE_AFTER_FAILURE_S = 0.05
"""The least pause of a worker after a failure, so that an outage does not cause a request storm."""
WRONG_BODY = "the response does not match what was sent"


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


async def run(worker: Worker, delay: float = 0.0) -> None:
    """Make the requests of a worker until `stop` is set; the first after `delay` seconds."""
    await worker.pause(delay)
    pace = 0.0 if worker.traffic.kind == "websocket" else worker.traffic.interval
    try:
        while not worker.stop.is_set():
            began = now()
            worker.failed = False
            await KINDS[worker.traffic.kind](worker)
            least = PAUSE_AFTER_FAILURE_S if worker.failed else 0.0
            await worker.pause(max(pace - (now() - began), least))
    finally:
        worker.drop()
