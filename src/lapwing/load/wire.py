"""HTTP/1.1 as a client speaks it, by hand on asyncio's streams.

A library would hide what has to be counted: it pools connections, sends again by itself, and does
not tell a connection closed before the answer from one closed within it. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import msgspec

LIMIT = 1024 * 1024
"""Bytes that a line of an answer may have, and that are read at once."""


class Failed(Exception):
    """Why a request failed, in words."""


class ClosedEarly(Failed):
    """The connection was closed or reset before the first byte of the answer."""


class Target(msgspec.Struct, frozen=True):
    """Whom to ask. `url` is scheme, host and port, without a path; `address` is where to connect
    if the host's name is not to be resolved; `authority` is the path of a file of certificates to
    trust.

    `version_header` is the header of an answer that names the version; `timeout` is how many
    seconds a client waits for a connection, for an answer, and for each further piece of it.
    """

    url: str
    address: str | None = None
    authority: str | None = None
    version_header: str = "x-release"
    timeout: float = 10.0

    @property
    def host(self) -> str:
        """Host and port, as in the Host header."""
        return urlsplit(self.url).netloc


@dataclass(slots=True)
class Response:
    """The head of an answer. `body` reads the rest, once."""

    status: int
    headers: dict[str, str]
    connection: Connection
    has_body: bool
    keep: bool = field(init=False)
    """Whether the connection can be used again once the body is read."""

    def __post_init__(self) -> None:
        self.keep = "close" not in self.headers.get("connection", "").lower()

    async def read(self) -> bytes:
        """The whole body. Raises Failed if it is cut short."""
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises Failed if it is cut short."""
        length = self.headers.get("content-length")
        if not self.has_body:
            return
        if "chunked" in self.headers.get("transfer-encoding", "").lower():
            async for piece in self._chunks():
                yield piece
        elif length is not None:
            left = int(length)
            while left:
                piece = await self.connection.some(min(left, LIMIT))
                left -= len(piece)
                yield piece
        else:
            # Without a length the end of the connection is the end of the body: a cut does not
            # show. Envoy never answers so to HTTP/1.1.
            self.keep = False
            with contextlib.suppress(_Ended):
                while True:
                    yield await self.connection.some(LIMIT)

    async def _chunks(self) -> AsyncIterator[bytes]:
        while True:
            line = await self.connection.line()
            left = _number(line.split(b";")[0], 16)
            if left == 0:
                while await self.connection.line():
                    pass  # trailers
                return
            while left:
                piece = await self.connection.some(min(left, LIMIT))
                left -= len(piece)
                yield piece
            if await self.connection.line():
                raise Failed("the answer is garbled: a chunk has no end")


class _Ended(Failed):
    """The connection ended."""


class Connection:
    """One connection to a target."""

    def __init__(
        self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.target = target
        self.patience = target.timeout
        """Seconds without a byte after which it counts as dead."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, target: Target, context: ssl.SSLContext | None) -> Connection:
        """Connect, with TLS where the target says https. Raises Failed."""
        parts = urlsplit(target.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            async with asyncio.timeout(target.timeout):
                reader, writer = await asyncio.open_connection(
                    target.address or parts.hostname,
                    port,
                    limit=LIMIT,
                    ssl=context,
                    server_hostname=parts.hostname if context else None,
                )
        except TimeoutError:
            raise Failed("no connection in time") from None
        except OSError as error:  # Also ssl.SSLError.
            raise Failed(f"no connection: {error.strerror or error}") from None
        return cls(target, reader, writer)

    async def request(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """Send a request and wait for the head of the answer. Raises Failed."""
        await self.send_head(method, path, headers, len(body) if body else None, body)
        return await self.response(method)

    async def send_head(
        self,
        method: str,
        path: str,
        headers: dict[str, str] | None = None,
        length: int | None = None,
        body: bytes = b"",
    ) -> None:
        """Send the head of a request, and the beginning of its body; `length` is that of the whole
        body. Raises ClosedEarly."""
        lines = {"Host": self.target.host, "User-Agent": "lapwing-load", **(headers or {})}
        if length is not None:
            lines["Content-Length"] = str(length)
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        await self.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    async def send(self, data: bytes) -> None:
        """Send more of it. Raises ClosedEarly."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (OSError, ssl.SSLError) as error:
            raise ClosedEarly(f"closed while sending: {error}") from None

    async def response(self, method: str = "GET") -> Response:
        """Wait for the head of an answer; interim ones (1xx) are passed over. Raises Failed."""
        while True:
            try:
                status = await self._status()
            except _Ended:
                raise ClosedEarly("closed before the answer") from None
            headers = await self._headers()
            if status == 101 or status >= 200:
                break
        return Response(status, headers, self, method != "HEAD" and status not in (101, 204, 304))

    async def _status(self) -> int:
        parts = (await self.line()).split(b" ", 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1."):
            raise Failed("the answer is not HTTP")
        return _number(parts[1], 10)

    async def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while line := await self.line():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return headers

    async def line(self) -> bytes:
        """A line, without its end. Raises Failed."""
        try:
            async with asyncio.timeout(self.patience):
                return (await self._reader.readuntil(b"\r\n"))[:-2]
        except asyncio.IncompleteReadError as error:
            raise (Failed if error.partial else _Ended)("cut short") from None
        except TimeoutError:
            raise Failed("no answer in time") from None
        except (OSError, ssl.SSLError) as error:
            raise _Ended(f"cut short: {error}") from None
        except (asyncio.LimitOverrunError, ValueError):
            raise Failed("the answer is garbled: a line without end") from None

    async def some(self, most: int) -> bytes:
        """Some bytes, one at least. Raises Failed."""
        try:
            async with asyncio.timeout(self.patience):
                data = await self._reader.read(most)
        except TimeoutError:
            raise Failed("the answer stopped half-way") from None
        except (OSError, ssl.SSLError) as error:
            raise _Ended(f"cut short: {error}") from None
        if not data:
            raise _Ended("cut short")
        return data

    async def exactly(self, count: int) -> bytes:
        """So many bytes. Raises Failed."""
        data = b""
        while len(data) < count:
            data += await self.some(count - len(data))
        return data

    def was_closed(self) -> bool:
        """Whether the server has closed it, as far as we have heard: a client that looks does not
        send on it any more."""
        return self._reader.at_eof() or self._writer.is_closing()

    def close(self) -> None:
        """Close it; whatever is still on the way is nobody's any more."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()


def trust(target: Target) -> ssl.SSLContext | None:
    """What a connection to the target trusts; None without TLS. Raises OSError if the file of
    certificates cannot be read."""
    if urlsplit(target.url).scheme != "https":
        return None
    context = ssl.create_default_context(cafile=target.authority)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _number(text: bytes, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise Failed("the answer is garbled: a number is none") from None
