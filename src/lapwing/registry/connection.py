"""One HTTP/1.1 connection: a TCP or TLS stream to one host, and the exchanges on it.

asyncio's own streams copy every byte three times and give 64 KiB at a time, and a whole HTTP client
adds milliseconds to each request (decisions 0011 and 0050). Here a socket is read into one buffer
that belongs to the connection, so what `receive` returns is valid only until the next call. Data
that the socket accepts or has at once bypasses the event loop. Every network failure is a
`ConnectionFailed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeVar
from urllib.parse import SplitResult

from lapwing.registry.http import (
    InvalidMessage,
    encode_request,
    parse_chunk_size,
    parse_head,
    split_head,
)

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
MAX_LINE_BYTES = 1024
"""Bytes of the line before a chunk, and of a trailer."""
MAX_EXTRAS = 20
"""Informational heads before a response, and trailers after a body in chunks."""
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


def _now(call: Callable[[], T]) -> T:
    """Call a non-blocking method of a socket. Raises ConnectionFailed, BlockingIOError."""
    try:
        return call()
    except (BlockingIOError, InterruptedError):
        raise
    except OSError as error:
        raise ConnectionFailed(error.strerror or str(error)) from error


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
        with contextlib.suppress(BlockingIOError, InterruptedError):
            return self._buffer[: _now(lambda: self._socket.recv_into(self._buffer))]
        received = self._loop.sock_recv_into(self._socket, self._buffer)
        return self._buffer[: await _within(IDLE_TIMEOUT_S, received, "timed out while receiving")]

    async def send(self, data: Bytes) -> None:
        """Send all bytes."""
        with contextlib.suppress(BlockingIOError, InterruptedError):
            count = _now(lambda: self._socket.send(data))
            if count == len(data):
                return
            data = memoryview(data)[count:]
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
        self._rest: Bytes = b""
        """What was received after the last part that was read."""
        self._is_head = False
        self._sent = False
        self._read = False
        self._keep_alive = False
        self._length: int | None = None
        self._is_chunked = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.reusable = False

    async def request(
        self, method: str, target: str, headers: Mapping[str, str], body: Body
    ) -> None:
        """Send a request and read the head of its response."""
        self._is_head = method == "HEAD"
        try:
            head = encode_request(method, target, headers)
        except InvalidMessage as error:
            raise ConnectionFailed(f"invalid request: {error}") from error
        # A registry may refuse before it has read the whole body; its response says why.
        with contextlib.suppress(ConnectionFailed):
            await self._send(head, body)
            self._sent = True
        with _http_errors():
            await self._read_head()

    async def _send(self, head: bytes, body: Body) -> None:
        if isinstance(body, bytes):
            await self._stream.send(head + body)
            return
        await self._stream.send(head)
        async for data in body:
            await self._stream.send(data)

    async def _read_head(self) -> None:
        """Read heads up to the one that is not informational."""
        for _ in range(MAX_EXTRAS):
            received = bytes(self._rest)
            while (found := split_head(received)) is None:
                data = await self._stream.receive()
                if not data:
                    raise ConnectionFailed("connection closed before a response")
                received += data
                if len(received) > MAX_HEAD_BYTES + BUFFER_BYTES:
                    raise InvalidMessage("the head has no end")
            head, self._rest = parse_head(found[0]), found[1]
            self.status = head.status
            if self.status == 101:
                raise InvalidMessage("unexpected change of the protocol")
            if self.status >= 200:
                break
        else:
            raise InvalidMessage("too many informational heads")
        self.headers, self._keep_alive = head.headers, head.keep_alive
        if self._is_head or self.status in (204, 304):
            self._length = 0
            return
        self._is_chunked, self._length = head.is_chunked, head.length
        if self._is_chunked and self._length is not None:
            raise InvalidMessage("both Content-Length and Transfer-Encoding")

    async def body(self) -> AsyncGenerator[Bytes, None]:
        """Read the body of the response."""
        self._read = True
        if self._is_chunked:
            async for data in self._chunked():
                yield data
        elif self._length is not None:
            async for data in self._sized(self._length):
                yield data
        else:
            while data := await self._next():
                yield data

    async def drain(self) -> None:
        """Discard a short body that was not read, so that the stream can be reused."""
        if not self._read and (self._length or 0) <= MAX_DRAIN_BYTES:
            async for _ in self.body():
                pass

    async def _next(self) -> Bytes:
        """Return the next bytes; none at the end of the connection."""
        data, self._rest = self._rest, b""
        return data or await self._stream.receive()

    async def _sized(self, left: int) -> AsyncGenerator[Bytes, None]:
        data, self._rest = self._rest, b""
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
        with _http_errors():
            while left := parse_chunk_size(await self._line()):
                while left:
                    data = await self._next()
                    if not data:
                        raise ConnectionFailed("connection closed in the middle of a body")
                    part, self._rest = data[:left], data[left:]
                    left -= len(part)
                    yield part
                if (await self._line()).strip(b"\r"):
                    raise InvalidMessage("a chunk is longer than its size")
            for _ in range(MAX_EXTRAS):  # Trailers are not used.
                if not (await self._line()).strip(b"\r"):
                    break
            else:
                raise InvalidMessage("too many trailers")
        self.reusable = self._keep_alive and self._sent and not self._rest

    async def _line(self) -> bytes:
        """Return the next line of a chunked body, without its end."""
        line = b""
        while True:
            data = await self._next()
            if not data or len(line) > MAX_LINE_BYTES:
                raise ConnectionFailed("connection closed in the middle of a body")
            begin, found, _ = bytes(data[:MAX_LINE_BYTES]).partition(b"\n")
            line += begin
            self._rest = data[len(begin) + len(found) :]
            if found:
                return line


@contextlib.contextmanager
def _http_errors() -> Iterator[None]:
    """Turn a response that is not HTTP/1.1 into ConnectionFailed."""
    try:
        yield
    except InvalidMessage as error:
        raise ConnectionFailed(f"invalid HTTP response: {error}") from error
