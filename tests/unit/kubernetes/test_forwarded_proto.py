"""Each request gets `X-Forwarded-Proto`, however the stream is split, and nothing else changes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.kubernetes.forwarded_proto import MAX_HEAD_BYTES, RequestRewriter

PATHS = st.text("abc/-?=&%20", max_size=20).map(lambda t: "/" + t)
TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(lambda t: f"x-{t}")
VALUES = st.text("abc ,;=0123456789", max_size=20).map(str.strip)
BODIES = st.binary(max_size=120)


@dataclass(frozen=True)
class SentRequest:
    path: str
    fields: list[tuple[str, str]]
    body: bytes
    chunks: list[int] | None
    spoofed: bool

    def wire(self) -> bytes:
        lines = [f"POST {self.path} HTTP/1.1", "Host: localhost:8585"]
        lines += [f"{n}: {v}" for n, v in self.fields]
        if self.spoofed:
            lines.append("x-FORWARDED-proto: http")
        if self.chunks is None:
            lines.append(f"content-length: {len(self.body)}")
            return "\r\n".join([*lines, "", ""]).encode() + self.body
        lines.append("Transfer-Encoding: chunked")
        head = "\r\n".join([*lines, "", ""]).encode()
        at = sorted({0, len(self.body), *(c for c in self.chunks if c < len(self.body))})
        pieces = [self.body[a:b] for a, b in pairwise(at)]
        body = b"".join(b"%x;note=1\r\n%b\r\n" % (len(p), p) for p in pieces if p)
        return head + body + b"0\r\nx-last: 1\r\n\r\n"


REQUESTS = st.builds(
    SentRequest,
    path=PATHS,
    fields=st.lists(
        st.tuples(TOKENS, VALUES).filter(lambda f: f[0] != "x-forwarded-proto"), max_size=4
    ),
    body=BODIES,
    chunks=st.none() | st.lists(st.integers(1, 100), max_size=4),
    spoofed=st.booleans(),
)


def parse(wire: bytes) -> list[tuple[str, list[tuple[str, str]], bytes]]:
    """Parse requests as a server does: target, fields and body of each."""
    found = []
    server = h11.Connection(h11.SERVER)
    server.receive_data(wire)
    while True:
        event = server.next_event()
        if event is h11.NEED_DATA:
            return found
        if isinstance(event, h11.Request):
            fields = [(n.decode(), v.decode()) for n, v in event.headers]
            target, body = event.target.decode(), b""
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found.append((target, fields, body))
            server.send(h11.Response(status_code=204, headers=[]))
            server.send(h11.EndOfMessage())
            server.start_next_cycle()


@settings(max_examples=200, deadline=None)
@given(st.lists(REQUESTS, min_size=1, max_size=4), st.lists(st.integers(0, 2000), max_size=8))
def test_each_request_gets_the_header_once_and_is_otherwise_unchanged(
    requests: list[SentRequest], cuts: list[int]
) -> None:
    wire = b"".join(a.wire() for a in requests)
    at = sorted({0, len(wire), *(c for c in cuts if c < len(wire))})
    rewriter = RequestRewriter()
    marked = b"".join(rewriter.feed(wire[a:b]) for a, b in pairwise(at))
    before, after = parse(wire), parse(marked)
    assert len(before) == len(requests)
    for (target, fields, body), (target_now, fields_now, body_now) in zip(
        before, after, strict=True
    ):
        kept = [f for f in fields if f[0] != "x-forwarded-proto"]
        assert (target_now, body_now) == (target, body)
        assert fields_now == [("x-forwarded-proto", "https"), *kept]


def test_websocket_frames_pass_unchanged() -> None:
    rewriter = RequestRewriter()
    head = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    frames = b"\x81\x85GET / HTTP/1.1\r\n\r\n"
    assert rewriter.feed(head + frames).endswith(b"Upgrade: websocket\r\n\r\n" + frames)
    assert rewriter.feed(b"GET / HTTP/1.1\r\n\r\n") == b"GET / HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    "wire",
    [b"\x16\x03\x01\x02\x00\n", b"SSH-2.0-x\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
)
def test_other_protocols_pass_unchanged(wire: bytes) -> None:
    assert RequestRewriter().feed(wire) == wire


def test_oversized_head_is_not_held_back() -> None:
    rewriter = RequestRewriter()
    start = b"GET / HTTP/1.1\r\nx: "
    out = rewriter.feed(start)
    for _ in range(MAX_HEAD_BYTES // 1000 + 1):
        out += rewriter.feed(b"a" * 1000)
    assert len(out) > MAX_HEAD_BYTES


@pytest.mark.parametrize("length", [b"5, 6", b"-1", b"five"])
def test_invalid_content_length_passes_unchanged(
    length: bytes,
) -> None:
    wire = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %b\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    rewriter = RequestRewriter()
    assert rewriter.feed(wire % length) == wire % length
    assert rewriter.feed(b"GET / HTTP/1.1\r\n\r\n") == b"GET / HTTP/1.1\r\n\r\n"


def test_invalid_chunks_pass_unchanged() -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    rest = b"4\r\nbody\r\nnot a size\r\nGET / HTTP/1.1\r\n\r\n"
    rewriter = RequestRewriter()
    assert rewriter.feed(head).startswith(b"POST / HTTP/1.1\r\nX-Forwarded-Proto: https\r\n")
    assert rewriter.feed(rest) + rewriter.feed(b"more") == rest + b"more"
