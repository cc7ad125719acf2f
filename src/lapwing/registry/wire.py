"""One HTTP/1.1 exchange on a stream.

h11, the protocol engine of httpx, reads and writes the heads and the bodies in chunks, and checks
their form. A body with a known length goes past it, straight between the socket and whoever reads
it: through a whole HTTP client each request costs milliseconds and each byte is copied four times,
which would make a copy slower than the tools that it replaces.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from urllib.parse import SplitResult

import h11

from lapwing.registry.streams import Broken, Piece, Stream

LONGEST_HEAD = 64 * 1024
"""Bytes of an answer's head at most."""
SHORT = 64 * 1024
"""Bytes of a body that are read away rather than closing the connection."""

Content = bytes | AsyncIterator[Piece]
"""A request's body; a stream is as long as the Content-Length header of its request says."""


def target(parts: SplitResult) -> str:
    """What stands in a request for a URL."""
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


class Exchange:
    """One request and its answer. `reusable` tells, at the end, whether the stream may serve the
    next one. All of it raises Broken."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD)
        self._head = False
        self._sent = False
        self._begun = False
        self.status = 0
        self.headers: dict[str, str] = {}
        self.reusable = False

    async def request(
        self, method: str, wanted: str, headers: Mapping[str, str], content: Content
    ) -> None:
        """Send a request and read the head of its answer."""
        self._head = method == "HEAD"
        try:
            request = h11.Request(method=method, target=wanted, headers=list(headers.items()))
            head = self._protocol.send(request) or b""
        except h11.LocalProtocolError as error:
            raise Broken(f"the request cannot be sent: {error}") from error
        try:
            await self._send(head, content)
            self._sent = True
        except Broken:
            # A registry may refuse before it has read all; its answer tells why.
            await self._answer()
        else:
            await self._answer()

    async def _send(self, head: bytes, content: Content) -> None:
        if isinstance(content, bytes):
            await self._stream.send(head + content)
            return
        await self._stream.send(head)
        async for piece in content:
            await self._stream.send(piece)

    async def _answer(self) -> None:
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                break
            if not isinstance(event, h11.InformationalResponse):
                raise Broken("it was closed before an answer came")
        self.status = event.status_code
        for raw, value in event.headers:
            name, text = raw.decode("latin-1"), value.decode("latin-1")
            self.headers[name] = f"{self.headers[name]}, {text}" if name in self.headers else text
        self._lasting = event.http_version == b"1.1" and "close" not in self.headers.get(
            "connection", ""
        )

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The body of the answer."""
        self._begun = True
        if self._head or self.status in (204, 304):
            self.reusable = self._lasting and self._sent
        elif "transfer-encoding" in self.headers:
            async for piece in self._chunked():
                yield piece
        elif "content-length" in self.headers:
            async for piece in self._measured(int(self.headers["content-length"])):
                yield piece
        else:
            while piece := await self._rest():
                yield piece

    async def finish(self) -> None:
        """Read away a short body that nobody asked for, so that the stream can be used again."""
        if not self._begun and int(self.headers.get("content-length", "0")) <= SHORT:
            async for _ in self.pieces():
                pass

    async def _measured(self, left: int) -> AsyncGenerator[Piece, None]:
        piece: Piece = self._protocol.trailing_data[0]
        while True:
            if len(piece) > left:
                raise Broken("it sends more than it said")
            left -= len(piece)
            if left == 0:
                # Before the last piece is given on: few who have it come back for the end.
                self.reusable = self._lasting and self._sent
            if piece:
                yield piece
            if left == 0:
                return
            piece = await self._stream.receive()
            if not piece:
                raise Broken("it was closed in the middle of a body")

    async def _chunked(self) -> AsyncGenerator[Piece, None]:
        while isinstance(event := await self._event(), h11.Data):
            yield bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            raise Broken("it was closed in the middle of a body")
        self.reusable = self._lasting and self._sent and not self._protocol.trailing_data[0]

    async def _rest(self) -> Piece:
        """The next bytes of a body that ends with its connection."""
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
            raise Broken(f"what it sends is not HTTP: {error}") from error
        return event
