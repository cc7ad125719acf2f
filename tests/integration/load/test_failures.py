"""The load client against faulty servers: each failure has to be counted."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest
from websockets.utils import accept_key

from lapwing.load.client import Plan, drive
from lapwing.load.connection import Target
from lapwing.load.record import Exchange, Kind, Ledger
from lapwing.load.worker import Traffic

Handler = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Serves one connection; the first argument counts connections from 1."""

ANSWER = b"HTTP/1.1 200 OK\r\nX-Release: one\r\nContent-Length: 2\r\n\r\nok"
STREAM = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
INVALID_CHUNK = r"invalid HTTP response: illegal chunk header: bytearray(b'zz\r\n')"
UPGRADE = "HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"


async def load(handler: Handler, kind: Kind, count: int = 1, **more: object) -> Ledger:
    """The first `count` exchanges of one worker with a server."""
    connections = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await handler(connections, reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    traffic = Traffic(kind=kind, path="/", **more)  # type: ignore[arg-type]
    try:
        return await meet(port, traffic, count)
    finally:
        server.close()


async def meet(port: int, traffic: Traffic, count: int) -> Ledger:
    ledger = Ledger()
    stop = asyncio.Event()

    def add(exchange: Exchange) -> None:
        ledger.add(exchange)
        if ledger.sent >= count:
            stop.set()

    plan = Plan(Target(f"http://127.0.0.1:{port}", timeout=0.5), (traffic,))
    await asyncio.wait_for(drive(plan, add, stop), 60)
    return ledger


async def head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


def says(*pieces: bytes) -> Handler:
    """Reads a request, sends these pieces, and closes."""

    async def handler(_n: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()

    return handler


def upgrades(*frames: bytes) -> Handler:
    """Accepts a WebSocket, sends these frames, and closes."""

    async def handler(_n: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await head(reader)).decode()
        key = request.split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
        writer.write(f"{UPGRADE}Sec-WebSocket-Accept: {accept_key(key)}\r\n\r\n".encode())
        for frame in frames:
            writer.write(frame)
            await writer.drain()

    return handler


async def reset(_n: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await head(reader)
    linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)


async def hangs(_n: int, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await head(reader)
    await reader.read()


@pytest.mark.parametrize("kind", ["new", "keep-alive", "page"])
@pytest.mark.parametrize(
    ("handler", "failure"),
    [
        (says(), "closed before the response"),
        (reset, "closed before the response"),
        (hangs, "no data within 0.5 s"),
        (says(b"SSH-2.0-OpenSSH\r\n"), "the response is not HTTP"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Le"), "the response was truncated"),
        (says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"), "the response was truncated"),
        (says(STREAM, b"5\r\nwhole\r\n"), "the response was truncated"),
        (says(STREAM, b"9\r\nhalf"), "the response was truncated"),
        (
            says(STREAM, b"zz\r\n"),
            INVALID_CHUNK,
        ),
        (says(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), "status 500"),
        (says(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"), "status 404"),
    ],
)
async def test_failed_or_truncated_response_fails(
    kind: Kind, handler: Handler, failure: str
) -> None:
    (exchange,) = (await load(handler, kind)).exchanges
    assert exchange.failure == failure
    assert not exchange.raced


async def test_refused_connection_fails() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        ledger = await meet(port, Traffic(kind="new", path="/"), 1)
    assert ledger.failures[0].failure is not None
    assert ledger.failures[0].failure.startswith("no connection: ")


async def test_successful_response_records_version_and_times() -> None:
    for kind in ("new", "keep-alive", "slow"):
        (exchange,) = (await load(says(ANSWER), kind)).exchanges  # type: ignore[arg-type]
        assert (exchange.failure, exchange.status, exchange.version) == (None, 200, "one")
        assert exchange.answered is not None
        assert exchange.began <= exchange.sent <= exchange.answered <= exchange.ended


async def test_kept_connection_closed_before_response_is_race_and_retried() -> None:
    async def once(n: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(ANSWER)
        await head(reader)
        if n > 1:
            writer.write(ANSWER)

    ledger = await load(once, "keep-alive", 3)
    assert [(e.raced, e.failure) for e in ledger.exchanges[:3]] == [
        (False, None),
        (True, None),
        (False, None),
    ]
    assert len(ledger.races) == 1


async def test_kept_connection_closed_within_response_fails() -> None:
    async def half(_n: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(ANSWER)
        await head(reader)
        writer.write(b"HTTP/1.1 2")

    ledger = await load(half, "keep-alive", 2)
    assert [(e.raced, e.failure) for e in ledger.exchanges] == [
        (False, None),
        (False, "the response was truncated"),
    ]


async def test_request_with_body_is_not_retried() -> None:
    async def once(n: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + await reader.readexactly(4))
        await head(reader)

    ledger = await load(once, "body", 2, body="four")
    assert [e.failure for e in ledger.exchanges] == [None, "closed before the response"]
    assert not ledger.races


async def test_connection_close_header_is_honoured() -> None:
    polite = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    ledger = await load(says(polite), "keep-alive", 3)
    assert [(e.failure, e.raced) for e in ledger.exchanges] == [(None, False)] * 3


async def test_changed_body_fails() -> None:
    async def other(_n: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        await reader.readexactly(len("something"))
        writer.write(ANSWER)

    ledger = await load(other, "body", 2, body="something")
    assert ledger.exchanges[1].failure == "the response does not match what was sent"
    ledger = await load(other, "slow", body="something")
    assert ledger.exchanges[0].failure == "the response does not match what was sent"


async def test_connection_closed_within_slow_body_fails() -> None:
    ledger = await load(reset, "slow", body="x" * 1000, seconds=0.5)
    assert ledger.failures


async def test_truncated_stream_fails_and_completed_one_succeeds() -> None:
    event = b"9\r\ndata: 1\n\n\r\n"
    cut = await load(says(STREAM, event), "events", seconds=30)
    assert cut.exchanges[0].failure == "the response was truncated"
    ended = await load(says(STREAM, event, b"0\r\n\r\n"), "events", seconds=30)
    assert (ended.exchanges[0].failure, ended.exchanges[0].ended_by) == (None, "server")
    assert ended.exchanges[0].messages == 1


async def test_silent_stream_fails() -> None:
    async def silent(_n: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(STREAM)
        await reader.read()

    ledger = await load(silent, "events", seconds=30, quiet=0.3)
    assert ledger.exchanges[0].failure == "no data within 0.3 s"


async def test_stream_is_closed_after_its_time() -> None:
    async def endless(_n: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(STREAM + b"9\r\ndata: 1\n\n\r\n")
        await reader.read()

    ledger = await load(endless, "events", seconds=0.3)
    assert (ledger.exchanges[0].failure, ledger.exchanges[0].ended_by) == (None, "client")


async def websocket(handler: Handler) -> Exchange:
    return (await load(handler, "websocket", seconds=30)).exchanges[0]


async def test_websocket_without_close_frame_fails() -> None:
    assert (await websocket(upgrades())).failure == "closed without a close frame"


async def test_websocket_closed_by_server_succeeds() -> None:
    closed = await websocket(upgrades(b"\x88\x02\x03\xe9"))
    assert (closed.failure, closed.ended_by) == (None, "server")


async def test_websocket_with_wrong_message_fails() -> None:
    assert (await websocket(upgrades(b"\x81\x02no"))).failure == "another message was echoed"
    fragments = await websocket(upgrades(b"\x01\x02me", b"\x80\x07ssage 0", b"\x88\x00"))
    assert (fragments.failure, fragments.messages) == (None, 1)


async def test_websocket_with_invalid_frame_fails() -> None:
    failure = (await websocket(upgrades(b"\x81\x82abcdno"))).failure
    assert failure == "invalid WebSocket frame: incorrect masking"


async def test_websocket_with_invalid_handshake_fails() -> None:
    assert (await websocket(says(ANSWER))).failure == "status 200 instead of 101"
    failure = (await websocket(says(f"{UPGRADE}\r\n".encode()))).failure
    assert failure == "invalid WebSocket handshake: missing Sec-WebSocket-Accept header"
    failure = (await websocket(says())).failure
    assert failure == "invalid WebSocket handshake: did not receive a valid HTTP response"


async def test_page_with_missing_asset_fails() -> None:
    page = b'<script src="/assets/index-abc.js">'

    async def site(_n: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            if b"GET / " in await head(reader):
                size = f"Content-Length: {len(page)}\r\n\r\n".encode()
                writer.write(b"HTTP/1.1 200 OK\r\n" + size + page)
            else:
                writer.write(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")

    ledger = await load(site, "page", 2, version=r"/assets/index-(\w+)\.js")
    assert [e.failure for e in ledger.exchanges] == [None, "status 404"]
    assert ledger.exchanges[0].version == "abc"


@pytest.mark.parametrize("loses_a_field", [False, True])
async def test_rest_check_creates_reads_and_deletes(loses_a_field: bool) -> None:
    stored: dict[str, bytes] = {}
    sent: list[bytes] = []

    async def rest(_n: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await head(reader)
            method, path, *_ = request.split(b" ")
            if method == b"POST":
                size = int(request.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                stored["/1"] = await reader.readexactly(size)
                sent.append(stored["/1"])
                head_of = b"HTTP/1.1 201 Made\r\nLocation: /1\r\nContent-Length: 0\r\n\r\n"
                writer.write(head_of)
            elif method == b"GET":
                body = b"{}" if loses_a_field else stored[path.decode()][:-1] + b', "id": 1}'
                size_of = f"Content-Length: {len(body)}\r\n\r\n".encode()
                writer.write(b'HTTP/1.1 200 OK\r\nETag: "7"\r\n' + size_of + body)
            else:
                assert b'If-Match: "7"' in request
                del stored[path.decode()]
                writer.write(b"HTTP/1.1 204 Gone\r\n\r\n")

    ledger = await load(rest, "body", 6, body='{"name": "{unique}"}', check="rest")
    wrong = [e.failure for e in ledger.failures]
    assert bool(wrong) == loses_a_field
    assert set(wrong) <= {"the response does not match what was sent"}
    assert [e.status for e in ledger.exchanges[:2]] == [201, 200]
    assert len(set(sent)) == len(sent) > 1
    assert stored == {}
