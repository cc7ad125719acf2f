"""HTTP/1.1 as a client of registries needs it: heads of messages, and bodies in chunks.

h11 does this for the other clients here; it is the largest part of the CPU time of a copy of many
small layers (decision 0050). Only what a client reads is accepted:
a response with a folded header, a transfer coding other than `chunked` or two lengths is an error.

Source: RFC 9112 (HTTP/1.1), sections 3 to 7.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_TARGET = re.compile(r"[!-~]+")
_VALUES = re.compile(r"[\t -~]*")
_END = re.compile(rb"\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\r\n\0]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n\0]*)?")


class InvalidMessage(Exception):
    """A message that is not HTTP/1.1."""


class Head(NamedTuple):
    """The head of a response. Names of headers are lower-case; values of one name are joined."""

    status: int
    headers: dict[str, str]
    keep_alive: bool

    @property
    def is_chunked(self) -> bool:
        """Whether the body is in chunks. Raises InvalidMessage for another transfer coding."""
        coding = self.headers.get("transfer-encoding")
        coding = coding and coding.lower()
        if coding not in (None, "chunked"):
            raise InvalidMessage(f"unsupported Transfer-Encoding {coding[:100]!r}")
        return coding is not None

    @property
    def length(self) -> int | None:
        """The length of the body, if it is given. Raises InvalidMessage if it is no number."""
        text = self.headers.get("content-length")
        if text is not None and not (text.isascii() and text.isdigit() and len(text) < 20):
            raise InvalidMessage(f"invalid Content-Length {text[:100]!r}")
        return None if text is None else int(text)


def encode_request(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    """Return the head of a request.

    Raises InvalidMessage if a registry's URL or a token has a character that would end a line.
    """
    if not _TARGET.fullmatch(target) or not _VALUES.fullmatch("".join(headers.values())):
        raise InvalidMessage("a URL or a header has a character that is not allowed")
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode("ascii")


def split_head(received: bytes) -> tuple[bytes, bytes] | None:
    """Return the head and what follows it; None if its end is not there yet."""
    end = _END.search(received)
    return None if end is None else (received[: end.start()], received[end.end() :])


def parse_head(head: bytes) -> Head:
    """Parse the head of a response, without its last line. Raises InvalidMessage."""
    status, *fields = [line.removesuffix(b"\r") for line in head.split(b"\n")]
    found = _STATUS.fullmatch(status)
    if found is None:
        raise InvalidMessage(f"no status line: {status[:100]!r}")
    headers: dict[str, str] = {}
    for line in fields:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise InvalidMessage(f"invalid header {line[:100]!r}")
        name, value = field[1].decode("ascii").lower(), field[2].decode("latin-1")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    closes = "close" in headers.get("connection", "").lower()
    keep_alive = found[1] == b"1" and not closes
    return Head(int(found[2]), headers, keep_alive)


def parse_chunk_size(line: bytes) -> int:
    """Return the size of the chunk after a line. Raises InvalidMessage."""
    found = _CHUNK.fullmatch(line.removesuffix(b"\r"))
    if found is None:
        raise InvalidMessage(f"invalid size of a chunk: {line[:100]!r}")
    return int(found[1], 16)
