"""One HTTP/1.1 connection: a TCP or TLS stream to one host, and the exchanges on it.

asyncio's own streams copy every byte three times and give 64 KiB at a time, and a whole HTTP client
adds milliseconds to each request (decision 0011). Here a socket is read into one buffer that
belongs to the connection, so what `receive` returns is valid only until the next call. h11, the
protocol engine of httpx, reads and writes heads and chunked bodies; a body of known length bypasses
it. Every network failure is a `ConnectionFailed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from typing import Any, TypeVar
from urllib.parse import SplitResult

import h11

T = TypeVar("T")
Bytes = bytes | memoryview
"""Part of a body; a view is valid until the next part is read."""
Body = bytes | AsyncIterator[Bytes]
"""The body of a request; a stream is as long as the Content-Length header of its request."""

BUFFER_BYTES = 512 * 1024
"""Bytes of a body in memory at once, for each connection."""
CONNECT_TIMEOUT_S = 10.0
"""For a TCP connection, and again for the TLS handshake on it."""
IDLE_TIMEOUT_S = 120.0
"""Time without a byte after which a connection is closed. A registry may verify a large blob before
it answers."""
MAX_HEAD_BYTES = 64 * 1024
MAX_DRAIN_BYTES = 64 * 1024
"""Bytes of an unread body that are discarded rather than closing the connection."""


class ConnectionFailed(Exception):
    """A connection broke, or could not be made (`reached` is False)."""

    def __init__(self, why: str, *, reached: bool = True) -> None:
        super().__init__(why)
        self.reached = reached


async def _within(seconds: float, work: Awaitable[T], message: str, *, reached: bool = True) -> T:
    """Await `work`. Raises ConnectionFailed after a timeout or a failure of the socket."""
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError as error:
        raise ConnectionFailed(message, reached=reached) from error
    except OSError as error:  # ssl.SSLError is one.
        raise ConnectionFailed(error.strerror or str(error), reached=reached) from error


async def connect(host: str, port: int) -> TcpStream:
    """Connect to a host; each of its addresses is tried in turn."""
    connecting = _connect(host, port)
    return TcpStream(
        await _within(CONNECT_TIMEOUT_S, connecting, "connection timed out", reached=False)
    )


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    last: OSError | None = None
    for family, kind, protocol, _, address in await _addresses(loop, host, port):
        opened = socket.socket(family, kind, protocol)
        try:
            opened.setblocking(False)
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(opened, address)
        except OSError as error:
            opened.close()
            last = error
        except BaseException:
            opened.close()
            raise
        else:
            return opened
    raise last or OSError("the host has no address")


async def _addresses(loop: asyncio.AbstractEventLoop, host: str, port: int) -> list[Any]:
    """Return the addresses of a host. One that is an address itself needs no thread.

    A name is given as bytes, because the codec for other names takes milliseconds to load.
    """
    name = host.encode() if host.isascii() else host
    with contextlib.suppress(OSError):
        return socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    return await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM)


class TcpStream:
    """A connection without TLS."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(BUFFER_BYTES))

    async def receive(self) -> Bytes:
        """Return the next bytes, in the buffer of this connection."""
        received = self._loop.sock_recv_into(self._socket, self._buffer)
        return self._buffer[: await _within(IDLE_TIMEOUT_S, received, "timed out while receiving")]

    async def send(self, data: Bytes) -> None:
        """Send all bytes."""
        sent = self._loop.sock_sendall(self._socket, data)
        await _within(IDLE_TIMEOUT_S, sent, "timed out while sending")

    async def start_tls(self, context: ssl.SSLContext, hostname: str) -> TlsStream:
        """Do the TLS handshake on this connection."""
        opening = asyncio.open_connection(
            sock=self._socket, ssl=context, server_hostname=hostname, limit=BUFFER_BYTES
        )
        try:
            reader, writer = await _within(
                CONNECT_TIMEOUT_S, opening, "TLS handshake timed out", reached=False
            )
        except ConnectionFailed:
            self._socket.close()
            raise
        return TlsStream(reader, writer)

    def is_stale(self) -> bool:
        """Return whether there is something to read before a request: the end, in practice."""
        try:
            self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True

    async def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class TlsStream:
    """A connection with TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> Bytes:
        """Return the next bytes."""
        received = self._reader.read(BUFFER_BYTES)
        return await _within(IDLE_TIMEOUT_S, received, "timed out while receiving")

    async def send(self, data: Bytes) -> None:
        """Send all bytes. A view is copied, because TLS may keep it after this returns."""
        self._writer.write(bytes(data))
        await _within(IDLE_TIMEOUT_S, self._writer.drain(), "timed out while sending")

    def is_stale(self) -> bool:
        """Return whether the other side has closed the connection."""
        return self._reader.at_eof()

    async def close(self) -> None:
        """Close the connection, waiting up to a second for the other side."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()


Stream = TcpStream | TlsStream
"""Bytes in both directions. Every method raises ConnectionFailed."""


def request_target(parts: SplitResult) -> str:
    """Return the request target (path and query) of a URL."""
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


class Exchange:
    """One request and its response.

    At the end, `reusable` says whether the stream may serve the next one. Every method raises
    ConnectionFailed.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._is_head = False
        self._sent = False
        self._read = False
        self._keep_alive = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.reusable = False

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: Body
    ) -> None:
        """Send a request and read the head of its response."""
        self._is_head = method == "HEAD"
        try:
            request = h11.Request(method=method, target=target, headers=list(headers.items()))
            head = self._protocol.send(request) or b""
        except h11.LocalProtocolError as error:
            raise ConnectionFailed(f"invalid request: {error}") from error
        # A registry may refuse before it has read the whole body; its response says why.
        with contextlib.suppress(ConnectionFailed):
            await self._send(head, body)
            self._sent = True
        await self._read_head()

    async def _send(self, head: bytes, body: Body) -> None:
        if isinstance(body, bytes):
            await self._stream.send(head + body)
            return
        await self._stream.send(head)
        async for data in body:
            await self._stream.send(data)

    async def _read_head(self) -> None:
        while not isinstance(event := await self._event(), h11.Response):
            if not isinstance(event, h11.InformationalResponse):
                raise ConnectionFailed("connection closed before a response")
        self.status = event.status_code
        for raw, value in event.headers:
            name, text = raw.decode("latin-1"), value.decode("latin-1")
            self.headers[name] = f"{self.headers[name]}, {text}" if name in self.headers else text
        closing = "close" in self.headers.get("connection", "")
        self._keep_alive = event.http_version == b"1.1" and not closing

    async def body(self) -> AsyncGenerator[Bytes, None]:
        """Read the body of the response."""
        self._read = True
        if self._is_head or self.status in (204, 304):
            self.reusable = self._keep_alive and self._sent
        elif "transfer-encoding" in self.headers:
            async for data in self._chunked():
                yield data
        elif "content-length" in self.headers:
            async for data in self._sized(int(self.headers["content-length"])):
                yield data
        else:
            while data := await self._until_closed():
                yield data

    async def drain(self) -> None:
        """Discard a short body that was not read, so that the stream can be reused."""
        if not self._read and int(self.headers.get("content-length", "0")) <= MAX_DRAIN_BYTES:
            async for _ in self.body():
                pass

    async def _sized(self, left: int) -> AsyncGenerator[Bytes, None]:
        data: Bytes = self._protocol.trailing_data[0]
        while True:
            if len(data) > left:
                raise ConnectionFailed("more bytes received than Content-Length")
            left -= len(data)
            if left == 0:
                # Set before the last part is yielded: few readers come back for the end.
                self.reusable = self._keep_alive and self._sent
            if data:
                yield data
            if left == 0:
                return
            data = await self._stream.receive()
            if not data:
                raise ConnectionFailed("connection closed in the middle of a body")

    async def _chunked(self) -> AsyncGenerator[Bytes, None]:
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            raise ConnectionFailed("connection closed in the middle of a body")
        self.reusable = self._keep_alive and self._sent and not self._protocol.trailing_data[0]

    async def _until_closed(self) -> Bytes:
        """Return the next bytes of a body that ends with its connection."""
        data = self._protocol.trailing_data[0]
        if data:
            self._protocol = h11.Connection(h11.CLIENT)
            return data
        return await self._stream.receive()

    async def _event(self) -> object:
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                self._protocol.receive_data(bytes(await self._stream.receive()))
        except h11.RemoteProtocolError as error:
            raise ConnectionFailed(f"invalid HTTP response: {error}") from error
        return event
