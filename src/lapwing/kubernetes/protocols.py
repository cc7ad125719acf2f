"""Probe servers in their own protocols, over any stream of bytes. Nothing is written to them.

Each request is as small as its protocol allows, so no client library is needed. A password is sent
where Redis asks for one, and is in no result and no error.

Sources: Redis documentation, RESP and INFO; MySQL documentation, Protocol::HandshakeV10 and
ERR_Packet; MongoDB documentation, OP_MSG and hello; PostgreSQL documentation, SSLRequest; RFC 9112.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import h11

from lapwing.agent.resources.kinds import MONGO_PROBE
from lapwing.kubernetes.tunnel import Stream

MAX_RESPONSE_BYTES = 1 << 20
RESPONSE_TIMEOUT_S = 5.0


class ProtocolError(Exception):
    """A server does not speak its protocol, or refuses."""


@dataclass(frozen=True, slots=True)
class RedisInfo:
    """What INFO reports: version, clients besides us, keys, keyspace hits and misses."""

    version: str
    clients: int
    keys: int
    hits: int
    misses: int

    @property
    def used(self) -> bool:
        """Whether it has clients, or has had any since it was started."""
        return self.clients > 0 or self.hits + self.misses > 0


class _Reader:
    """Reads as many bytes of a stream as a protocol needs."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = b""

    async def exactly(self, size: int) -> bytes:
        if size > MAX_RESPONSE_BYTES:
            raise ProtocolError("unexpected response")
        while len(self._buffer) < size:
            await self._read()
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    async def line(self) -> bytes:
        while b"\n" not in self._buffer:
            if len(self._buffer) > MAX_RESPONSE_BYTES:
                raise ProtocolError("unexpected response")
            await self._read()
        found, _, self._buffer = self._buffer.partition(b"\n")
        return found.removesuffix(b"\r")

    async def _read(self) -> None:
        data = await self._stream.read()
        if not data:
            raise ProtocolError("connection closed by the server")
        self._buffer += data


async def redis(stream: Stream, password: str | None) -> RedisInfo:
    """Send PING and INFO. Raises ProtocolError or TunnelError."""
    reader = _Reader(stream)
    if password:
        await stream.write(_redis_command("AUTH", password))
        if not (await _redis_reply(reader)).startswith("OK"):
            raise ProtocolError("the password of its Secret is rejected")
    await stream.write(_redis_command("PING"))
    if await _redis_reply(reader) != "PONG":
        raise ProtocolError("no answer to PING")
    await stream.write(_redis_command("INFO"))
    return parse_redis_info(await _redis_reply(reader))


def parse_redis_info(info: str) -> RedisInfo:
    """Parse the reply to INFO."""
    lines = [line.partition(":") for line in info.splitlines()]
    fields = {name: value.strip() for name, colon, value in lines if colon}
    keys = 0
    for name, value in fields.items():
        if name.startswith("db") and name[2:].isdigit():
            counts = dict(f.split("=", 1) for f in value.split(",") if "=" in f)
            keys += int(counts.get("keys", "0"))
    return RedisInfo(
        version=fields.get("valkey_version") or fields.get("redis_version", "?"),
        clients=max(0, int(fields.get("connected_clients", "1")) - 1),
        keys=keys,
        hits=int(fields.get("keyspace_hits", "0")),
        misses=int(fields.get("keyspace_misses", "0")),
    )


def _redis_command(*words: str) -> bytes:
    parts = [w.encode() for w in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)


async def _redis_reply(reader: _Reader) -> str:
    line = await reader.line()
    kind, rest = line[:1], line[1:].decode(errors="replace")
    if kind == b"+":
        return rest
    if kind == b"-":
        if rest.split(" ", 1)[0] in ("NOAUTH", "WRONGPASS"):
            raise ProtocolError("the password of its Secret is rejected")
        raise ProtocolError(f"error: {rest[:100]}")
    if kind == b"$" and rest.isdigit():
        body = await reader.exactly(int(rest) + 2)
        return body[:-2].decode(errors="replace")
    raise ProtocolError("does not speak Redis's protocol")


async def mysql(stream: Stream) -> str:
    """Return the version in the server's greeting. Raises ProtocolError or TunnelError."""
    reader = _Reader(stream)
    size = int.from_bytes((await reader.exactly(4))[:3], "little")
    return parse_mysql_greeting(await reader.exactly(size))


def parse_mysql_greeting(packet: bytes) -> str:
    """Return the version in a MySQL server's first packet. Raises ProtocolError."""
    if packet[:1] == b"\xff":
        raise ProtocolError(f"error: {packet[3:].decode(errors='replace')[:100]}")
    if packet[:1] != b"\x0a" or b"\0" not in packet:
        raise ProtocolError("does not speak MySQL's protocol")
    return packet[1 : packet.index(b"\0")].decode(errors="replace")


async def mongodb(stream: Stream) -> bool:
    """Return whether the server is writable. Raises ProtocolError or TunnelError."""
    reader = _Reader(stream)
    await stream.write(MONGO_PROBE.sent)
    (size,) = struct.unpack("<i", await reader.exactly(4))
    response = await reader.exactly(max(0, size - 4))
    if b"maxWireVersion" not in response:
        raise ProtocolError("does not speak MongoDB's protocol")
    return b"\x08isWritablePrimary\0\x01" in response or b"\x08ismaster\0\x01" in response


async def postgres(stream: Stream) -> None:
    """Send an SSLRequest, which any PostgreSQL server answers before a login.

    Raises ProtocolError or TunnelError.
    """
    await stream.write(struct.pack("!ii", 8, 80877103))
    if await _Reader(stream).exactly(1) not in (b"S", b"N"):
        raise ProtocolError("does not speak PostgreSQL's protocol")


async def http(stream: Stream, host: str, path: str) -> int:
    """Return the status of a GET that came by HTTPS. Raises ProtocolError or TunnelError."""
    headers = [
        ("host", host),
        ("user-agent", "lapwing-verify"),
        ("x-forwarded-proto", "https"),
        ("connection", "close"),
    ]
    connection = h11.Connection(h11.CLIENT)
    request = connection.send(h11.Request(method="GET", target=path, headers=headers))
    await stream.write((request or b"") + (connection.send(h11.EndOfMessage()) or b""))
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await stream.read())
    except h11.RemoteProtocolError as error:
        raise ProtocolError("does not speak HTTP") from error
    if not isinstance(event, h11.Response):
        raise ProtocolError("does not speak HTTP")
    return event.status_code
