"""The connection pool: made when needed, kept for the next request, through proxies.

There is one `Transport` for each command, for all registries and token servers. Its callers bound
the number of connections: a copy transfers a limited number of blobs at a time.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from lapwing.errors import RegistryError
from lapwing.registry.connection import (
    Body,
    ConnectionFailed,
    Exchange,
    Stream,
    TcpStream,
    connect,
    request_target,
)
from lapwing.system.trust import tls_context

KEEP_ALIVE_S = 20.0
"""How long an idle connection is kept; servers rarely keep one for less than 30 seconds."""
PORTS = {"http": 80, "https": 443}
PROBE_TIMEOUT_S = 3.0
"""For the answer to a TLS greeting."""
TLS_RECORDS = (b"\x15", b"\x16")
"""How an answer in TLS begins: an alert or a handshake (RFC 8446, 5.1)."""


class Transport:
    """Connections to any host, through the proxies that `environ` names.

    `authority` is a file of certificates that are trusted beside the system's.
    """

    def __init__(self, environ: Mapping[str, str], authority: Path | None = None) -> None:
        self._environ = environ
        self._authority = authority
        self._proxies: dict[tuple[str, str], str | None] = {}
        self._idle: dict[tuple[str, str], list[tuple[Stream, float]]] = {}
        self._context: ssl.SSLContext | None = None

    async def close(self) -> None:
        """Close idle connections."""
        for idle in self._idle.values():
            for stream, _ in idle:
                await stream.close()
        self._idle.clear()

    @contextlib.asynccontextmanager
    async def exchange(
        self, method: str, url: str, headers: Mapping[str, str], body: Body
    ) -> AsyncIterator[Exchange]:
        """Make one exchange.

        Raises ConnectionFailed if the connection breaks, RegistryError for an invalid URL.
        """
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise RegistryError(f"Invalid registry URL: {url[:200]!r}.")
        proxy = self._proxy(parts.scheme, parts.hostname)
        stream = await self._take(parts, proxy)
        exchange = Exchange(stream)
        try:
            target = request_target(parts)
            if proxy and parts.scheme == "http":
                target = f"http://{parts.netloc}{target}"
                headers = {**headers, **_proxy_authorization(proxy)}
            await exchange.request(method, target, headers, body)
            yield exchange
            await exchange.drain()
        finally:
            if exchange.reusable:
                idle = self._idle.setdefault((parts.scheme, parts.netloc), [])
                idle.append((stream, time.monotonic() + KEEP_ALIVE_S))
            else:
                await stream.close()

    def _proxy(self, scheme: str, host: str) -> str | None:
        if (scheme, host) not in self._proxies:
            self._proxies[scheme, host] = proxy_for(self._environ, scheme, host)
        return self._proxies[scheme, host]

    async def _take(self, parts: SplitResult, proxy: str | None) -> Stream:
        """Return an idle connection that is still open, or a new one."""
        idle = self._idle.get((parts.scheme, parts.netloc), [])
        while idle:
            stream, until = idle.pop()
            if until > time.monotonic() and not stream.is_stale():
                return stream
            await stream.close()
        return await self._connect(parts, proxy)

    async def has_tls(self, host: str) -> bool:
        """Return whether a host answers a TLS greeting in TLS. Certificates are not verified."""
        parts = urlsplit(f"https://{host}")
        proxy = self._proxy("https", parts.hostname or "")
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                stream = await self._connect_tcp(parts, proxy)
                try:
                    await stream.send(_tls_greeting(parts.hostname or ""))
                    return bytes((await stream.receive())[:1]) in TLS_RECORDS
                finally:
                    await stream.close()
        except (ConnectionFailed, TimeoutError):
            return False

    async def _connect(self, parts: SplitResult, proxy: str | None) -> Stream:
        stream = await self._connect_tcp(parts, proxy)
        if parts.scheme == "http":
            return stream
        if self._context is None:
            self._context = tls_context(self._environ, self._authority)
        return await stream.start_tls(self._context, parts.hostname or "")

    async def _connect_tcp(self, parts: SplitResult, proxy: str | None) -> TcpStream:
        """Connect to a host, for https through the tunnel of a proxy."""
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        if proxy is None:
            return await connect(host, port)
        through = urlsplit(proxy)
        if through.scheme != "http" or not through.hostname:
            raise RegistryError(
                f"Unsupported proxy for {parts.netloc}: only http:// proxies can be used.",
                hint="Set HTTPS_PROXY, HTTP_PROXY or ALL_PROXY to an http:// URL; traffic to "
                "an https registry stays encrypted through it.",
            )
        stream = await connect(through.hostname, through.port or PORTS["http"])
        if parts.scheme == "https":
            await _tunnel(stream, f"{host}:{port}", proxy)
        return stream


def _tls_greeting(host: str) -> bytes:
    """Return the first message of a TLS handshake."""
    outgoing = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # As bytes: the codec for names in Unicode takes milliseconds to load.
    name = host.encode("ascii")
    handshake = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    return outgoing.read()


async def _tunnel(stream: TcpStream, target: str, proxy: str) -> None:
    """Open a tunnel through a proxy. Raises ConnectionFailed if the proxy refuses."""
    exchange = Exchange(stream)
    try:
        headers = {"Host": target, **_proxy_authorization(proxy)}
        await exchange.request("CONNECT", target, headers, b"")
        if exchange.status != 200:
            raise ConnectionFailed(f"the proxy responded {exchange.status}", reached=False)
    except BaseException:
        await stream.close()
        raise


def proxy_for(environ: Mapping[str, str], scheme: str, host: str) -> str | None:
    """Return the proxy for a host by HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY."""
    found = {
        name.lower().removesuffix("_proxy"): value
        for name, value in environ.items()
        if name.lower().endswith("_proxy") and value
    }
    proxy = found.get(scheme) or found.get("all")
    if proxy is None:
        return None
    import urllib.request

    bypass = getattr(urllib.request, "proxy_bypass_environment")  # noqa: B009 - not in typeshed
    return None if bypass(host, found) else proxy


def _proxy_authorization(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair).decode()}
