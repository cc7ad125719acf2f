"""Says in each request of an HTTP/1.1 connection that it came by HTTPS. Pure.

An application that makes links, cookies or redirects looks at `X-Forwarded-Proto`. On a cluster the
load balancer sets it; the edge behind one believes what it is told. Where we end TLS in place of
that load balancer, we say it, and what a client says itself is taken out.

Bodies are counted (Content-Length, or chunks) to find where the next request begins, and go through
untouched. After `Upgrade` (websockets), or when it is no HTTP/1.1, everything does.

Source: RFC 9112, sections 2, 6 and 7.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

LARGEST = 256 * 1024
"""Bytes of a head; with a larger one, nothing is changed any more, and the server refuses it."""
LINE = 64 * 1024
"""Bytes of a line between chunks."""
_FIRST = re.compile(rb"[!-~]+ \S+ HTTP/1\.[01]\r?\n")
_BLANK = re.compile(rb"\r?\n\r?\n")


class RequestRewriter:
    """One connection. `feed` takes what the client sends and returns what is to be sent on; what
    is part of an unfinished head waits."""

    def __init__(self) -> None:
        self._waiting = b""
        self._left = 0
        self._step: Callable[[], bytes | None] = self._head

    def feed(self, data: bytes) -> bytes:
        """Take more bytes."""
        self._waiting += data
        done = []
        while self._waiting:
            piece = self._step()
            if piece is None:
                break
            done.append(piece)
        return b"".join(done)

    def _take(self, size: int) -> bytes:
        piece, self._waiting = self._waiting[:size], self._waiting[size:]
        return piece

    def _all(self) -> bytes:
        self._step = self._all
        return self._take(len(self._waiting))

    def _head(self) -> bytes | None:
        lead = len(self._waiting) - len(self._waiting.lstrip(b"\r\n"))
        if lead:
            return self._take(lead)
        if b"\n" in self._waiting and not _FIRST.match(self._waiting):
            return self._all()
        end = _BLANK.search(self._waiting)
        if end is None:
            return self._all() if len(self._waiting) > LARGEST else None
        head = self._take(end.end())
        first, *fields = head[: end.start()].splitlines(keepends=True)
        named = [(f.partition(b":")[0].strip().lower(), f.partition(b":")[2]) for f in fields]
        self._step = self._body(first, named)
        kept = [f for f, (n, _) in zip(fields, named, strict=True) if n != b"x-forwarded-proto"]
        if kept and not kept[-1].endswith(b"\n"):
            kept[-1] += b"\r\n"
        line = first if first.endswith(b"\n") else first + b"\r\n"
        return b"".join([line, b"X-Forwarded-Proto: https\r\n", *kept, b"\r\n"])

    def _body(self, first: bytes, fields: list[tuple[bytes, bytes]]) -> Callable[[], bytes | None]:
        """What follows this head."""
        said: dict[bytes, bytes] = {}
        for name, value in fields:
            said[name] = said[name] + b"," + value if name in said else value
        if b"upgrade" in said or first.startswith(b"CONNECT "):
            return self._all
        if b"chunked" in said.get(b"transfer-encoding", b"").lower():
            return self._size
        length = said.get(b"content-length", b"0").strip()
        if not re.fullmatch(rb"\d{1,18}", length):
            return self._all
        self._left = int(length)
        return partial(self._counted, self._head) if self._left else self._head

    def _counted(self, then: Callable[[], bytes | None]) -> bytes:
        """What is left of a body or a chunk; what follows it is taken by `then`."""
        piece = self._take(self._left)
        self._left -= len(piece)
        if not self._left:
            self._step = then
        return piece

    def _size(self) -> bytes | None:
        line = self._line()
        if line is None:
            return self._all() if len(self._waiting) > LINE else None
        found = re.match(rb"[0-9a-fA-F]{1,15}", line)
        if found is None:
            return line + self._all()
        self._left = int(found[0], 16)
        chunk = partial(self._counted, self._after_chunk)
        self._step = chunk if self._left else self._trailer
        return line

    def _after_chunk(self) -> bytes | None:
        line = self._line()
        if line is not None:
            self._step = self._size
        return line

    def _trailer(self) -> bytes | None:
        line = self._line()
        if line is None:
            return self._all() if len(self._waiting) > LINE else None
        if line in (b"\r\n", b"\n"):
            self._step = self._head
        return line

    def _line(self) -> bytes | None:
        end = self._waiting.find(b"\n")
        return None if end < 0 else self._take(end + 1)
