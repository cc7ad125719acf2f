"""Requests of the agent to a replica on this machine, of which only the status counts."""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from urllib.parse import quote

from lapwing.agent import ports
from lapwing.plan.model import Health

ADDRESS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Connection:
    """An open connection for one request. `client` is the local port."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    client: int

    async def get(self, path: str, host: str) -> int | str:
        """Send the request; returns the status, or why the connection ended without one."""
        target = quote(path, safe="/%?:@!$&'()*+,;=[]~")
        self.writer.write(
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: lapwing-health\r\n"
            "Accept: */*\r\nConnection: close\r\n\r\n".encode()
        )
        try:
            return await self._status() or f"GET {path} failed: no response"
        except (OSError, ValueError):  # ValueError: a line without an end.
            return f"GET {path} failed: no response"

    async def _status(self) -> int | None:
        """Return the final status; informational ones (1xx) come before it."""
        while line := await self.reader.readline():
            if match := re.match(rb"HTTP/1\.[01] ([2-5]\d\d)", line):
                return int(match[1])
        return None

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()


async def connect(port: int) -> Connection | str:
    """Connect to a replica; returns why that is not possible."""
    try:
        reader, writer = await asyncio.open_connection(ADDRESS, port)
    except OSError:
        others = sorted({listener.address for listener in ports.listeners(port)} - {ADDRESS})
        if others:
            return f"it listens on {', '.join(others)}, not on $HOST, which is {ADDRESS}"
        return "nothing listens on its port yet"
    return Connection(reader, writer, writer.get_extra_info("sockname")[1])


async def get_status(port: int, path: str, health: Health) -> int | str:
    """Send a request on a new connection; returns the status, or why there is none."""
    try:
        async with asyncio.timeout(health.timeout):
            connection = await connect(port)
    except TimeoutError:
        return f"its port accepted no connection within {health.timeout:g} s"
    if isinstance(connection, str):
        return connection
    with contextlib.closing(connection):
        try:
            async with asyncio.timeout(health.timeout):
                return await connection.get(path, health.host)
        except TimeoutError:
            return f"GET {path} did not respond within {health.timeout:g} s"
