"""HTTP/1.1 messages of the registry client, compared with h11, and those that it refuses."""

from __future__ import annotations

from typing import cast

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.registry.connection import ConnectionFailed, Exchange, TcpStream
from lapwing.registry.http import (
    InvalidMessage,
    encode_request,
    parse_chunk_size,
    parse_head,
    split_head,
)

NAMES = st.from_regex(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", fullmatch=True).filter(
    lambda name: name.lower() not in ("content-length", "transfer-encoding", "connection")
)
VALUES = st.from_regex(r"([!-~]([ -~]{0,20}[!-~])?)?", fullmatch=True)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


@given(st.sampled_from([200, 202, 206, 404, 429]), FIELDS, st.sampled_from(["\r\n", "\n"]))
def test_heads_are_parsed_as_by_h11(status: int, fields: list[tuple[str, str]], end: str) -> None:
    lines = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in fields)]
    received = (end.join(lines) + end + end).encode() + b"rest"
    found = split_head(received)
    assert found is not None
    head = parse_head(found[0])
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    connection.receive_data(received)
    event = connection.next_event()
    assert isinstance(event, h11.Response)
    expected: dict[str, str] = {}
    for raw, value in event.headers:
        name, text = raw.decode(), value.decode("latin-1")
        expected[name] = f"{expected[name]}, {text}" if name in expected else text
    assert (head.status, head.headers, found[1]) == (status, expected, b"rest")


@given(st.from_regex(r"[!-~]{1,40}", fullmatch=True), st.dictionaries(NAMES, VALUES, max_size=5))
def test_requests_are_read_by_h11(target: str, headers: dict[str, str]) -> None:
    sent = encode_request("PUT", target, {"Host": "x", **headers})
    server = h11.Connection(h11.SERVER)
    server.receive_data(sent)
    if sum(name.lower() == "host" for name in headers):
        return
    event = server.next_event()
    assert isinstance(event, h11.Request)
    assert event.target.decode() == target
    assert [(n.decode(), v.decode()) for n, v in event.headers.raw_items()] == [
        ("Host", "x"), *headers.items()
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["/a b", "/a\r\nX: y", "/\u00e9", ""])
def test_target_that_ends_a_line_is_refused(text: str) -> None:
    with pytest.raises(InvalidMessage):
        encode_request("GET", text, {})


@pytest.mark.parametrize("text", ["a\r\nX: y", "a\n", "a\0", "\u00e9"])
def test_header_that_ends_a_line_is_refused(text: str) -> None:
    with pytest.raises(InvalidMessage):
        encode_request("GET", "/", {"Authorization": text})


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1  200 OK", b"SSH-2.0", b"HTTP/1.1 999",
        b"HTTP/1.1 200\r\nname : value", b"HTTP/1.1 200\r\n folded", b"HTTP/1.1 200\r\nname",
        b"HTTP/1.1 200\r\na: b\0c", b"HTTP/1.1 200\r\na: b\rc: d",
    ],
)  # fmt: skip
def test_invalid_head_is_refused(head: bytes) -> None:
    with pytest.raises(InvalidMessage):
        parse_head(head)


@pytest.mark.parametrize("value", ["-1", "+1", "1, 1", "1 1", "0x1", "", "1" * 30, "\u00b2"])
def test_invalid_length_is_refused(value: str) -> None:
    head = parse_head(f"HTTP/1.1 200 OK\r\nContent-Length: {value}".encode("latin-1"))
    with pytest.raises(InvalidMessage):
        assert head.length is None


def test_name_of_a_transfer_coding_has_any_case() -> None:
    assert parse_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked").is_chunked


def test_other_transfer_coding_is_refused() -> None:
    head = parse_head(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked")
    with pytest.raises(InvalidMessage):
        assert head.is_chunked is None


@pytest.mark.parametrize(
    ("line", "size"), [(b"0", 0), (b"1a\r", 26), (b"A;name=value\r", 10), (b"5 \r", 5)]
)
def test_sizes_of_chunks(line: bytes, size: int) -> None:
    assert parse_chunk_size(line) == size


@pytest.mark.parametrize("line", [b"", b"-1", b"0x1", b"1_0", b"g", b"1 2", b"f" * 16])
def test_invalid_size_of_chunk_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidMessage):
        parse_chunk_size(line)


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"HTTP/1.1 200 OK", True),
        (b"HTTP/1.1 200 OK\r\nConnection: keep-alive, Close", False),
        (b"HTTP/1.0 200 OK", False),
    ],
)
def test_connection_is_kept(head: bytes, kept: bool) -> None:
    assert parse_head(head).keep_alive is kept


class Received:
    """A stream that receives these bytes, then no more."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def receive(self) -> bytes:
        data, self._data = self._data, b""
        return data

    async def send(self, data: bytes) -> None:
        """Send nothing."""


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 1000,
    ],
)
async def test_endless_heads_and_trailers_are_refused(data: bytes) -> None:
    exchange = Exchange(cast("TcpStream", Received(data)))

    async def read() -> None:
        await exchange.request("GET", "/", {}, b"")
        async for _ in exchange.body():
            pass

    with pytest.raises(ConnectionFailed, match="too many"):
        await read()
