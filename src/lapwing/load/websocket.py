"""The client's side of a websocket: text, ping, pong and close. Source: RFC 6455.

Messages are short (below 64 KiB) and come in one frame, which is what a load client sends; a
server's fragments are put together.
"""

from __future__ import annotations

import base64
import contextlib
import os
import struct

from lapwing.load.wire import Connection, Failed, Response

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
CONTINUATION = 0


class Closed(Exception):
    """The server has closed the websocket politely, with a close frame."""


async def connect(connection: Connection, path: str) -> Response:
    """Ask for a websocket; returns the answer, which is 101 or a refusal. Raises Failed."""
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    }
    return await connection.request("GET", path, headers)


async def send(connection: Connection, text: str) -> None:
    """Send a message. Raises Failed."""
    await connection.send(_frame(TEXT, text.encode()))


async def receive(connection: Connection) -> str:
    """Wait for a message; pings are answered meanwhile. Raises Closed, or Failed if the connection
    ends without a close frame."""
    message = b""
    while True:
        final, opcode, data = await _read(connection)
        if opcode == CLOSE:
            with contextlib.suppress(Failed):  # The server need not wait for our answer.
                await connection.send(_frame(CLOSE, data[:2]))
            raise Closed
        if opcode == PING:
            await connection.send(_frame(PONG, data))
        elif opcode in (TEXT, CONTINUATION):
            message += data
            if final:
                return message.decode()
        elif opcode != PONG:
            raise Failed(f"the websocket is garbled: opcode {opcode}")


async def close(connection: Connection) -> None:
    """Say the end and wait until the server has said it too. Raises Failed if it does not."""
    await connection.send(_frame(CLOSE, struct.pack("!H", 1000)))
    while (await _read(connection))[1] != CLOSE:
        pass


async def _read(connection: Connection) -> tuple[bool, int, bytes]:
    first, second = await connection.exactly(2)
    length = second & 0x7F
    if length == 126:
        (length,) = struct.unpack("!H", await connection.exactly(2))
    elif length == 127:
        (length,) = struct.unpack("!Q", await connection.exactly(8))
    if second & 0x80:
        raise Failed("the websocket is garbled: a server's frame is masked")
    return bool(first & 0x80), first & 0x0F, await connection.exactly(length)


def _frame(opcode: int, data: bytes) -> bytes:
    """A frame, masked as a client has to (section 5.3)."""
    mask = os.urandom(4)
    size = len(data)
    head = bytes([0x80 | opcode])
    head += bytes([0x80 | size]) if size < 126 else struct.pack("!BH", 0x80 | 126, size)
    repeated = (mask * (size // 4 + 1))[:size]
    masked = (int.from_bytes(data) ^ int.from_bytes(repeated)).to_bytes(size)
    return head + mask + masked
