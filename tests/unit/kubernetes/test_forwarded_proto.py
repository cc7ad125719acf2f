"""Requests are marked as having come by HTTPS, wherever the stream is cut, and nothing else is
changed. What comes out is read by h11, an HTTP implementation of others."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapwing.kubernetes.forwarded_proto import LARGEST, RequestRewriter

PATHS = st.text("abc/-?=&%20", max_size=20).map(lambda t: "/" + t)
TOKENS = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(lambda t: f"x-{t}")
VALUES = st.text("abc ,;=0123456789", max_size=20).map(str.strip)
BODIES = st.binary(max_size=120)


@dataclass(frozen=True)
class Asked:
    path: str
    fields: list[tuple[str, str]]
    body: bytes
    chunks: list[int] | None
    lies: bool

    def wire(self) -> bytes:
        lines = [f"POST {self.path} HTTP/1.1", "Host: localhost:8585"]
        lines += [f"{n}: {v}" for n, v in self.fields]
        if self.lies:
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


ASKED = st.builds(
    Asked,
    path=PATHS,
    fields=st.lists(
        st.tuples(TOKENS, VALUES).filter(lambda f: f[0] != "x-forwarded-proto"), max_size=4
    ),
    body=BODIES,
    chunks=st.none() | st.lists(st.integers(1, 100), max_size=4),
    lies=st.booleans(),
)


def heard(wire: bytes) -> list[tuple[str, list[tuple[str, str]], bytes]]:
    """What a server hears: target, fields and body of each request."""
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
@given(st.lists(ASKED, min_size=1, max_size=4), st.lists(st.integers(0, 2000), max_size=8))
def test_each_request_is_marked_once_and_else_unchanged(
    asked: list[Asked], cuts: list[int]
) -> None:
    wire = b"".join(a.wire() for a in asked)
    at = sorted({0, len(wire), *(c for c in cuts if c < len(wire))})
    marker = RequestRewriter()
    marked = b"".join(marker.feed(wire[a:b]) for a, b in pairwise(at))
    before, after = heard(wire), heard(marked)
    assert len(before) == len(asked)
    for (target, fields, body), (target_now, fields_now, body_now) in zip(
        before, after, strict=True
    ):
        kept = [f for f in fields if f[0] != "x-forwarded-proto"]
        assert (target_now, body_now) == (target, body)
        assert fields_now == [("x-forwarded-proto", "https"), *kept]


def test_a_websocket_is_left_alone_behind_its_head() -> None:
    marker = RequestRewriter()
    head = b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    frames = b"\x81\x85GET / HTTP/1.1\r\n\r\n"
    assert marker.feed(head + frames).endswith(b"Upgrade: websocket\r\n\r\n" + frames)
    assert marker.feed(b"GET / HTTP/1.1\r\n\r\n") == b"GET / HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    "wire",
    [b"\x16\x03\x01\x02\x00\n", b"SSH-2.0-x\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
)
def test_what_is_no_http_1_goes_through(wire: bytes) -> None:
    assert RequestRewriter().feed(wire) == wire


def test_an_endless_head_is_not_kept() -> None:
    marker = RequestRewriter()
    start = b"GET / HTTP/1.1\r\nx: "
    out = marker.feed(start)
    for _ in range(LARGEST // 1000 + 1):
        out += marker.feed(b"a" * 1000)
    assert len(out) > LARGEST


def test_a_body_of_a_doubtful_length_is_not_searched_for_requests() -> None:
    wire = b"POST / HTTP/1.1\r\nContent-Length: 5, 6\r\n\r\nGET / HTTP/1.1\r\n\r\n"
    assert RequestRewriter().feed(wire).count(b"X-Forwarded-Proto") == 1
