"""Asking servers in their own protocols, over any stream of bytes: whether they answer, and what
they say of themselves. Nothing is written to them.

Each question is as small as the protocol allows, so no client library is needed. A password is
sent where Redis wants one, and is in no answer and no error.

Sources: Redis documents, RESP and INFO; MySQL documents, Protocol::HandshakeV10 and ERR_Packet;
MongoDB documents, OP_MSG and hello; PostgreSQL documents, SSLRequest; RFC 9112.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from lapwing.agent.resources.kinds import MONGO
from lapwing.kubernetes.tunnel import Stream

LARGEST = 1 << 20
"""Bytes that an answer may have."""
LATE = 5.0
"""Seconds in which a server has to answer."""


class ProtocolError(Exception):
    """A server does not answer as its protocol says, or refuses; in words."""


@dataclass(frozen=True, slots=True)
class Cache:
    """What a Redis says: its version, clients besides us, keys, and how often one was found."""

    version: str
    clients: int
    keys: int
    hits: int
    misses: int

    @property
    def used(self) -> bool:
        """Whether anybody uses it, or has done so since it was started."""
        return self.clients > 0 or self.hits + self.misses > 0


class Talk:
    """Reads from a stream as much as a protocol wants."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._have = b""

    async def exactly(self, size: int) -> bytes:
        """So many bytes. Raises ProtocolError if there are not."""
        if size > LARGEST:
            raise ProtocolError("it answers something else")
        while len(self._have) < size:
            await self._more()
        found, self._have = self._have[:size], self._have[size:]
        return found

    async def line(self) -> bytes:
        """A line without its end."""
        while b"\n" not in self._have:
            if len(self._have) > LARGEST:
                raise ProtocolError("it answers something else")
            await self._more()
        found, _, self._have = self._have.partition(b"\n")
        return found.removesuffix(b"\r")

    async def send(self, data: bytes) -> None:
        await self._stream.write(data)

    async def _more(self) -> None:
        data = await self._stream.read()
        if not data:
            raise ProtocolError("it hung up")
        self._have += data


async def redis(stream: Stream, password: str | None) -> Cache:
    """PING and INFO. Raises ProtocolError or TunnelError."""
    talk = Talk(stream)
    if password:
        await talk.send(_command("AUTH", password))
        if not (await _reply(talk)).startswith("OK"):
            raise ProtocolError("it does not take the password of its Secret")
    await talk.send(_command("PING"))
    if await _reply(talk) != "PONG":
        raise ProtocolError("it does not answer PING")
    await talk.send(_command("INFO"))
    return cache(await _reply(talk))


def cache(info: str) -> Cache:
    """What INFO says. Pure."""
    lines = [line.partition(":") for line in info.splitlines()]
    said = {name: value.strip() for name, colon, value in lines if colon}
    keys = 0
    for name, value in said.items():
        if name.startswith("db") and name[2:].isdigit():
            fields = dict(f.split("=", 1) for f in value.split(",") if "=" in f)
            keys += int(fields.get("keys", "0"))
    return Cache(
        version=said.get("valkey_version") or said.get("redis_version", "?"),
        clients=max(0, int(said.get("connected_clients", "1")) - 1),
        keys=keys,
        hits=int(said.get("keyspace_hits", "0")),
        misses=int(said.get("keyspace_misses", "0")),
    )


def _command(*words: str) -> bytes:
    parts = [w.encode() for w in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(p), p) for p in parts)


async def _reply(talk: Talk) -> str:
    line = await talk.line()
    kind, rest = line[:1], line[1:].decode(errors="replace")
    if kind == b"+":
        return rest
    if kind == b"-":
        what = rest.split(" ", 1)[0]
        if what in ("NOAUTH", "WRONGPASS"):
            raise ProtocolError("it does not take the password of its Secret")
        raise ProtocolError(f"it refuses: {rest[:100]}")
    if kind == b"$" and rest.isdigit():
        body = await talk.exactly(int(rest) + 2)
        return body[:-2].decode(errors="replace")
    raise ProtocolError("it does not speak Redis's protocol")


async def mysql(stream: Stream) -> str:
    """The version that the greeting names. Raises ProtocolError or TunnelError."""
    talk = Talk(stream)
    size = int.from_bytes((await talk.exactly(4))[:3], "little")
    return greeting(await talk.exactly(size))


def greeting(packet: bytes) -> str:
    """The version in a MySQL server's first packet. Pure. Raises ProtocolError."""
    if packet[:1] == b"\xff":
        raise ProtocolError(f"it refuses: {packet[3:].decode(errors='replace')[:100]}")
    if packet[:1] != b"\x0a" or b"\0" not in packet:
        raise ProtocolError("it does not speak MySQL's protocol")
    return packet[1 : packet.index(b"\0")].decode(errors="replace")


async def mongodb(stream: Stream) -> bool:
    """Whether the server says that it can be written to. Raises ProtocolError or TunnelError."""
    talk = Talk(stream)
    await talk.send(MONGO)
    (size,) = struct.unpack("<i", await talk.exactly(4))
    answer = await talk.exactly(max(0, size - 4))
    if b"maxWireVersion" not in answer:
        raise ProtocolError("it does not speak MongoDB's protocol")
    return b"\x08isWritablePrimary\0\x01" in answer or b"\x08ismaster\0\x01" in answer


async def postgres(stream: Stream) -> None:
    """Send an SSLRequest, which any PostgreSQL server answers before a login.

    Raises ProtocolError or TunnelError.
    """
    talk = Talk(stream)
    await talk.send(struct.pack("!ii", 8, 80877103))
    if await talk.exactly(1) not in (b"S", b"N"):
        raise ProtocolError("it does not speak PostgreSQL's protocol")


async def http(stream: Stream, host: str, path: str) -> int:
    """The status of a GET that came by HTTPS. Raises ProtocolError or TunnelError."""
    import h11

    said: Mapping[str, str] = {
        "host": host,
        "user-agent": "lapwing-verify",
        "x-forwarded-proto": "https",
        "connection": "close",
    }
    connection = h11.Connection(h11.CLIENT)
    request = h11.Request(method="GET", target=path, headers=list(said.items()))
    await stream.write(
        (connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b"")
    )
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await stream.read())
    except h11.RemoteProtocolError as error:
        raise ProtocolError("it does not speak HTTP") from error
    if not isinstance(event, h11.Response):
        raise ProtocolError("it does not speak HTTP")
    return event.status_code
