"""Add `X-Forwarded-Proto: https` to each request of an HTTP/1.1 connection.

An application that makes links, cookies or redirects reads this header. In a cluster the load
balancer sets it, and the edge behind one trusts it. Where we terminate TLS in place of that load
balancer, we set it, and drop what the client sent.

h11 parses the stream to find where each request begins and ends. Request heads are rewritten,
bodies pass unchanged. After `Upgrade` (WebSockets), and if it is not valid HTTP/1.1, everything
passes unchanged: the server answers as it would without us.
"""

from __future__ import annotations

import re

import h11

MAX_HEAD_BYTES = 256 * 1024
_REQUEST_LINE = re.compile(rb"[!-~]+ \S+ HTTP/1\.[01]\r?\n")


class RequestRewriter:
    """One connection: `feed` takes what the client sends and returns what to send to the server."""

    def __init__(self) -> None:
        """Begin with the head of a request."""
        self._is_raw = False
        self._buffer = b""
        """What was received and not returned yet."""
        self._begin()

    def feed(self, data: bytes) -> bytes:
        """Take more bytes; those of an incomplete head are held back."""
        out: list[bytes] = []
        self._receive(data)
        while not self._is_raw and (event := self._next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Request):
                self._consumed()
                out.append(_rewritten(event))
            elif isinstance(event, h11.EndOfMessage):
                out.append(self._consumed())
                rest, self._is_raw = self._buffer, self._parser.their_state is not h11.DONE
                if not self._is_raw:
                    self._begin()
                    self._receive(rest)
        if self._is_raw or self._parser.their_state is h11.SEND_BODY:
            out.append(self._buffer)
            self._buffer = b""
        return b"".join(out)

    def _begin(self) -> None:
        # One parser for each request: h11 would wait for the response before the next request.
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_BYTES)
        self._buffer = b""

    def _receive(self, data: bytes) -> None:
        is_between = not self._buffer and self._parser.their_state is h11.IDLE
        if is_between and not self._is_raw:
            data = data.lstrip(b"\r\n")  # Empty lines before a request. RFC 9112, section 2.2.
        self._buffer += data
        if data and not self._is_raw:
            self._parser.receive_data(data)

    def _next_event(self) -> object:
        is_head = self._parser.their_state is h11.IDLE and b"\n" in self._buffer
        try:
            if is_head and not _REQUEST_LINE.match(self._buffer):
                raise h11.RemoteProtocolError("not HTTP/1")
            return self._parser.next_event()
        except h11.RemoteProtocolError:
            self._is_raw = True
            return h11.NEED_DATA

    def _consumed(self) -> bytes:
        """Take from the buffer what the parser has taken from it."""
        rest = self._parser.trailing_data[0]
        end = len(self._buffer) - len(rest)
        taken, self._buffer = self._buffer[:end], rest
        return taken


def _rewritten(request: h11.Request) -> bytes:
    lines = [
        b"%b %b HTTP/%b" % (request.method, request.target, request.http_version),
        b"X-Forwarded-Proto: https",
        *(
            b"%b: %b" % (name, value)
            for name, value in request.headers.raw_items()
            if name.lower() != b"x-forwarded-proto"
        ),
    ]
    return b"\r\n".join([*lines, b"", b""])
