"""Byte streams to one host: a socket, or TLS on one.

asyncio's own streams copy every byte three times and give 64 KiB at a time; a plain socket is read
into one buffer that belongs to the connection, so what `receive` returns is only good until the
next call. Every failure of a network is a `Broken`.
"""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
from typing import Protocol

Piece = bytes | memoryview
"""Some bytes of a body; a view is good until the next one is asked for."""

PIECE = 512 * 1024
"""Bytes of a body that are in memory at once, for each connection."""
CONNECT_TIME = 10.0
"""Seconds for a connection, and again for TLS on it."""
QUIET_TIME = 120.0
"""Seconds without a byte, after which a connection is given up. A registry may verify a large blob
before it answers."""


class Broken(Exception):
    """A connection died, or was never made (`reached` is False)."""

    def __init__(self, why: str, *, reached: bool = True) -> None:
        super().__init__(why)
        self.reached = reached


class Stream(Protocol):
    """Bytes in both directions. All of it raises Broken."""

    async def receive(self) -> Piece:
        """The next bytes; none at the end."""
        ...

    async def send(self, data: Piece) -> None:
        """Send all of it."""
        ...

    def stale(self) -> bool:
        """Whether an idle connection was closed by the other side."""
        ...

    async def close(self) -> None:
        """Close it."""
        ...


async def connect(host: str, port: int) -> Plain:
    """A connection: each address of the host is tried in turn."""
    try:
        async with asyncio.timeout(CONNECT_TIME):
            return Plain(await _connect(host, port))
    except TimeoutError as error:
        raise Broken("it does not answer", reached=False) from error
    except OSError as error:
        raise Broken(error.strerror or str(error), reached=False) from error


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    last: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(made, address)
        except OSError as error:
            made.close()
            last = error
        except BaseException:
            made.close()
            raise
        else:
            return made
    raise last or OSError("the host has no address")


class Plain:
    """A socket without TLS."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(PIECE))

    async def receive(self) -> Piece:
        """The next bytes, in the buffer of this connection."""
        try:
            async with asyncio.timeout(QUIET_TIME):
                count = await self._loop.sock_recv_into(self._socket, self._buffer)
        except TimeoutError as error:
            raise Broken("nothing was received") from error
        except OSError as error:
            raise Broken(error.strerror or str(error)) from error
        return self._buffer[:count]

    async def send(self, data: Piece) -> None:
        """Send all of it."""
        try:
            async with asyncio.timeout(QUIET_TIME):
                await self._loop.sock_sendall(self._socket, data)
        except TimeoutError as error:
            raise Broken("nothing was taken") from error
        except OSError as error:
            raise Broken(error.strerror or str(error)) from error

    async def encrypt(self, context: ssl.SSLContext, name: str) -> Encrypted:
        """Agree upon TLS with the host called `name`."""
        try:
            async with asyncio.timeout(CONNECT_TIME):
                reader, writer = await asyncio.open_connection(
                    sock=self._socket, ssl=context, server_hostname=name, limit=PIECE
                )
        except TimeoutError as error:
            self._socket.close()
            raise Broken("TLS was not agreed upon", reached=False) from error
        except OSError as error:  # ssl.SSLError is one.
            self._socket.close()
            raise Broken(str(error), reached=False) from error
        return Encrypted(reader, writer)

    def stale(self) -> bool:
        """Whether there is something to read while nothing was asked: the end, in practice."""
        if self._socket.fileno() < 0:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    async def close(self) -> None:
        """Close it."""
        self._socket.close()


class Encrypted:
    """A connection with TLS."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> Piece:
        """The next bytes."""
        try:
            async with asyncio.timeout(QUIET_TIME):
                return await self._reader.read(PIECE)
        except TimeoutError as error:
            raise Broken("nothing was received") from error
        except OSError as error:
            raise Broken(str(error)) from error

    async def send(self, data: Piece) -> None:
        """Send all of it. A view is copied: TLS may keep it after this returns."""
        try:
            self._writer.write(bytes(data))
            async with asyncio.timeout(QUIET_TIME):
                await self._writer.drain()
        except TimeoutError as error:
            raise Broken("nothing was taken") from error
        except OSError as error:
            raise Broken(str(error)) from error

    def stale(self) -> bool:
        """Whether the other side has ended it."""
        return self._reader.at_eof()

    async def close(self) -> None:
        """Close it, waiting a moment for the other side."""
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._writer.wait_closed()
