"""The connections of a copy: made when needed, kept for the next request, through proxies.

There is one `Transport` for each command, for all registries and token servers. How many
connections there are at once is bounded by who asks: a copy works at so many blobs at a time.
"""

from __future__ import annotations

import base64
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from lapwing.errors import RegistryError
from lapwing.registry.streams import Broken, Encrypted, Plain, Stream, connect
from lapwing.registry.wire import Content, Exchange, target

KEPT = 20.0
"""Seconds for which an idle connection is kept; servers rarely keep one for less than 30."""
PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class _Idle:
    stream: Stream
    until: float


class Transport:
    """Connections to any host, through the proxies that `environ` names."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._idle: dict[tuple[str, str], list[_Idle]] = {}
        self._context: ssl.SSLContext | None = None

    async def close(self) -> None:
        """Close what is idle."""
        for kept in self._idle.values():
            for idle in kept:
                await idle.stream.close()
        self._idle.clear()

    @contextlib.asynccontextmanager
    async def exchange(
        self, method: str, url: str, headers: Mapping[str, str], content: Content
    ) -> AsyncIterator[Exchange]:
        """One exchange. Raises Broken if the connection dies, RegistryError for a URL that is
        none."""
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise RegistryError(f"{url[:200]!r} is not a URL of a registry.")
        proxy = proxy_for(self._environ, parts.scheme, parts.hostname)
        stream = await self._take(parts, proxy)
        exchange = Exchange(stream)
        try:
            wanted = target(parts)
            if proxy and parts.scheme == "http":
                wanted = f"http://{parts.netloc}{wanted}"
                headers = {**headers, **_proxy_login(proxy)}
            await exchange.request(method, wanted, headers, content)
            yield exchange
            await exchange.finish()
        finally:
            await self._give_back(parts, stream, reusable=exchange.reusable)

    async def _take(self, parts: SplitResult, proxy: str | None) -> Stream:
        kept = self._idle.get((parts.scheme, parts.netloc), [])
        while kept:
            idle = kept.pop()
            if idle.until > time.monotonic() and not idle.stream.stale():
                return idle.stream
            await idle.stream.close()
        return await self._connect(parts, proxy)

    async def _give_back(self, parts: SplitResult, stream: Stream, *, reusable: bool) -> None:
        if reusable:
            kept = self._idle.setdefault((parts.scheme, parts.netloc), [])
            kept.append(_Idle(stream, time.monotonic() + KEPT))
        else:
            await stream.close()

    async def _connect(self, parts: SplitResult, proxy: str | None) -> Stream:
        host, port = parts.hostname or "", parts.port or PORTS[parts.scheme]
        if proxy is None:
            plain = await connect(host, port)
            return plain if parts.scheme == "http" else await self._encrypt(plain, host)
        through = urlsplit(proxy)
        if through.scheme not in PORTS or not through.hostname:
            raise RegistryError(
                f"The proxy for {parts.netloc} is not a URL with http or https.",
                hint="Correct HTTPS_PROXY, HTTP_PROXY or ALL_PROXY.",
            )
        plain = await connect(through.hostname, through.port or PORTS[through.scheme])
        if through.scheme == "https":
            raise RegistryError(
                f"The proxy {through.hostname} is to be reached with TLS, which is not supported.",
                hint="Give it with http://; what goes through it to a registry is encrypted.",
            )
        if parts.scheme == "http":
            return plain
        await _tunnel(plain, f"{host}:{port}", proxy)
        return await self._encrypt(plain, host)

    async def _encrypt(self, plain: Plain, host: str) -> Encrypted:
        if self._context is None:
            self._context = trust(self._environ)
        return await plain.encrypt(self._context, host)


async def _tunnel(plain: Plain, goal: str, proxy: str) -> None:
    """Have a proxy connect us to `goal`. Raises Broken if it does not."""
    exchange = Exchange(plain)
    try:
        await exchange.request("CONNECT", goal, {"Host": goal, **_proxy_login(proxy)}, b"")
    except BaseException:
        await plain.close()
        raise
    if exchange.status != 200:
        await plain.close()
        raise Broken(f"its proxy answers {exchange.status}", reached=False)


def proxy_for(environ: Mapping[str, str], scheme: str, host: str) -> str | None:
    """The proxy for a host by HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY. Pure."""
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


def _proxy_login(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return {"Proxy-Authorization": "Basic " + base64.b64encode(pair).decode()}


def trust(environ: Mapping[str, str]) -> ssl.SSLContext:
    """The certificates of the machine, or those that SSL_CERT_FILE or SSL_CERT_DIR names; where
    the machine has none, those of the certifi package."""
    file, folder = environ.get("SSL_CERT_FILE"), environ.get("SSL_CERT_DIR")
    try:
        context = ssl.create_default_context(cafile=file or None, capath=folder or None)
    except OSError as error:
        raise RegistryError(
            f"The certificates in {file or folder} cannot be read ({error}).",
            hint="Correct SSL_CERT_FILE or SSL_CERT_DIR, or unset it.",
        ) from error
    if not file and not folder and ssl.get_default_verify_paths().capath is None:
        import certifi

        context.load_verify_locations(certifi.where())
    return context
