"""One HTTP/1.1 connection of the load client: h11 on asyncio's streams.

h11 parses and keeps the protocol's state. The streams stay ours, because a client library would
hide what has to be counted: it pools connections, retries, and does not distinguish a connection
that was closed before the response from one that was closed within it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import h11
import msgspec

MAX_HEAD_BYTES = 1024 * 1024
READ_BYTES = 256 * 1024


class RequestFailed(Exception):
    """Why a request failed, in words."""


class ClosedEarly(RequestFailed):
    """The connection was closed or reset before the first byte of the response."""


class Target(msgspec.Struct, frozen=True):
    """The server to send requests to.

    `url` is scheme, host and port, without a path; `address` is where to connect if the host name
    is not to be resolved; `authority` is the path of a file of certificates to trust.
    `version_header` is the response header that names the version; `timeout` is how many seconds a
    client waits for a connection, for a response, and for each further part of it.
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

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS settings of its connections; None for plain HTTP.

        Raises OSError if the file of certificates cannot be read.
        """
        if urlsplit(self.url).scheme != "https":
            return None
        context = ssl.create_default_context(cafile=self.authority)
        context.set_alpn_protocols(["http/1.1"])
        return context


class Response:
    """The head of a response. `read` and `pieces` read its body, once."""

    def __init__(self, head: h11.Response | h11.InformationalResponse, connection: Connection):
        self.status = head.status_code
        self.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in head.headers}
        self.connection = connection

    async def read(self) -> bytes:
        """Return the whole body. Raises RequestFailed if it is truncated."""
        return b"".join([piece async for piece in self.pieces()])

    async def pieces(self) -> AsyncIterator[bytes]:
        """Iterate over the body as it arrives. Raises RequestFailed if it is truncated.

        A body without a length ends with its connection: a truncated one is not detected. Envoy
        does not send such bodies over HTTP/1.1.
        """
        while isinstance(event := await self.connection.next_event(), h11.Data):
            yield bytes(event.data)


class Connection:
    """One connection to a target."""

    def __init__(
        self, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.target = target
        self.read_timeout = target.timeout
        """Seconds without a byte after which the response counts as failed."""
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._received = False
        """Whether the first byte of the present response has arrived."""

    @classmethod
    async def open(cls, target: Target, context: ssl.SSLContext | None) -> Connection:
        """Connect to a target, with TLS if a context is given. Raises RequestFailed."""
        parts = urlsplit(target.url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            async with asyncio.timeout(target.timeout):
                reader, writer = await asyncio.open_connection(
                    target.address or parts.hostname,
                    port,
                    limit=READ_BYTES,
                    ssl=context,
                    server_hostname=parts.hostname if context else None,
                )
        except TimeoutError:
            raise RequestFailed(f"no connection within {target.timeout:g} s") from None
        except OSError as error:  # Also ssl.SSLError.
            raise RequestFailed(f"no connection: {error.strerror or error}") from None
        return cls(target, reader, writer)

    async def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """Send a request and wait for the head of its response. Raises RequestFailed."""
        await self.start(method, path, headers, len(body), body)
        return await self.response()

    async def start(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        length: int = 0,
        body: bytes = b"",
    ) -> None:
        """Send the head of a request and the beginning of its body of `length` bytes.

        Raises ClosedEarly.
        """
        lines = {"Host": self.target.host, "User-Agent": "lapwing-load", **(headers or {})}
        if length:
            lines["Content-Length"] = str(length)
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        self._received = False
        head = self._http.send(h11.Request(method=method, target=path, headers=[*lines.items()]))
        await self.write((head or b"") + (self._http.send(h11.Data(body)) or b"" if body else b""))

    async def send(self, data: bytes) -> None:
        """Send the next part of a request body. Raises ClosedEarly."""
        await self.write(self._http.send(h11.Data(data)) or b"")

    async def response(self) -> Response:
        """Wait for the head of the response; skip interim ones (1xx). Raises RequestFailed."""
        if self._http.our_state is h11.SEND_BODY:
            self._http.send(h11.EndOfMessage())
        while True:
            event = await self.next_event()
            if isinstance(event, h11.Response):
                return Response(event, self)

    @property
    def reusable(self) -> bool:
        """Whether another request may be sent, now that the response is read."""
        return self._http.our_state is self._http.their_state is h11.DONE

    async def next_event(self) -> h11.Event:
        """Wait for the next part of the response. Raises RequestFailed."""
        data = None
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                if data != b"":
                    raise RequestFailed(f"invalid HTTP response: {error}") from None
                raise self._cut() from None
            if isinstance(event, h11.Event):
                return event
            data = await self.receive()
            if not self._received and data and not data.startswith(b"HTTP/"[: len(data)]):
                raise RequestFailed("the response is not HTTP")
            self._received = self._received or bool(data)
            self._http.receive_data(data)

    def _cut(self) -> RequestFailed:
        if self._received:
            return RequestFailed("the response was truncated")
        return ClosedEarly("closed before the response")

    async def receive(self) -> bytes:
        """Wait for bytes; none at the end of the connection. Raises RequestFailed after silence."""
        try:
            async with asyncio.timeout(self.read_timeout):
                return await self._reader.read(READ_BYTES)
        except TimeoutError:
            raise RequestFailed(f"no data within {self.read_timeout:g} s") from None
        except OSError:  # Reset; also ssl.SSLError.
            return b""

    async def write(self, data: bytes) -> None:
        """Write bytes to the socket. Raises ClosedEarly."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:  # Also ssl.SSLError.
            raise ClosedEarly(f"closed while sending: {error}") from None

    def was_closed(self) -> bool:
        """Return whether the server has closed the connection, as far as this side knows."""
        return self._reader.at_eof() or self._writer.is_closing()

    def close(self) -> None:
        """Close the connection without waiting."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()
