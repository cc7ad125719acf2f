"""A small web service on the standard library alone, with all that a switch can hurt.

    GET  /version          the text of VERSION, at once
    GET  /slow?seconds=2   the same, byte by byte over that time, with a Content-Length
    POST /echo             the body comes back
    GET  /events           server-sent events, five a second, for ever
    GET  /ws               a websocket that echoes
    GET  /healthz          200

Each path begins with the text of PREFIX. Each answer names the version in X-Release. On SIGTERM it
listens no more, answers what has begun, ends the event streams and closes websockets with "going
away", and ends.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import signal
import struct
from pathlib import Path

VERSION = Path(__file__).with_name("VERSION").read_text().strip()
PREFIX = Path(__file__).with_name("PREFIX").read_text().strip()
Headers = dict[str, str]
stopping = asyncio.Event()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
        while not stopping.is_set():
            ask = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
            stop = asyncio.ensure_future(stopping.wait())
            await asyncio.wait({ask, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            if not ask.done():
                ask.cancel()
                break
            head = ask.result().decode().split("\r\n")
            method, target, _ = head[0].split(" ")
            headers = {k.lower(): v.strip() for k, _, v in (h.partition(":") for h in head[1:])}
            path, _, query = target.removeprefix(PREFIX).partition("?")
            if not await answer(method, path, query, headers, reader, writer):
                break
    writer.close()


async def answer(
    method: str,
    path: str,
    query: str,
    headers: Headers,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> bool:
    """Answer one request; returns whether the connection goes on."""
    if path == "/echo":
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        writer.write(start(200, len(body)) + body)
    elif path == "/slow":
        text = VERSION.encode() * 20
        writer.write(start(200, len(text)))
        for byte in text:
            await asyncio.sleep(float(query.partition("=")[2]) / len(text))
            writer.write(bytes([byte]))
            await writer.drain()
    elif path == "/events":
        await events(writer)
        return False
    elif path == "/ws":
        await websocket(headers["sec-websocket-key"], reader, writer)
        return False
    else:
        text = VERSION.encode()
        status = 200 if path in ("/version", "/healthz") else 404
        writer.write(start(status, len(text)) + text)
    await writer.drain()
    return headers.get("connection", "").lower() != "close"


def start(status: int, length: int | None = None, more: str = "") -> bytes:
    size = "" if length is None else f"Content-Length: {length}\r\n"
    return f"HTTP/1.1 {status} Answer\r\nX-Release: {VERSION}\r\n{size}{more}\r\n".encode()


async def events(writer: asyncio.StreamWriter) -> None:
    more = "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    writer.write(start(200, None, more))
    number = 0
    while not stopping.is_set():
        text = f"data: {number}\n\n".encode()
        writer.write(f"{len(text):x}\r\n".encode() + text + b"\r\n")
        await writer.drain()
        number += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), 0.2)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


async def websocket(key: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
    accept = base64.b64encode(digest).decode()
    more = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n"
    writer.write(start(101, None, more))
    while True:
        read = asyncio.ensure_future(frame(reader))
        stop = asyncio.ensure_future(stopping.wait())
        await asyncio.wait({read, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not read.done():
            read.cancel()
            writer.write(bytes([0x88, 2]) + struct.pack("!H", 1001))
            await writer.drain()
            await asyncio.sleep(0.2)
            return
        opcode, data = read.result()
        writer.write(bytes([0x80 | opcode, len(data)]) + data)
        await writer.drain()
        if opcode == 8:
            return


async def frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """A short masked frame: opcode and data."""
    first, second = await reader.readexactly(2)
    mask = await reader.readexactly(4)
    data = await reader.readexactly(second & 0x7F)
    return first & 0x0F, bytes(b ^ mask[i % 4] for i, b in enumerate(data))


async def main() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        connections.add(task)
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(
        connected, os.environ.get("HOST", "127.0.0.1"), int(os.environ["PORT"])
    )
    await stopping.wait()
    server.close()
    if connections:
        await asyncio.wait(connections, timeout=8)


if __name__ == "__main__":
    asyncio.run(main())
