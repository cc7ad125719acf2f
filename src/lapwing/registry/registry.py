"""One registry: requests with authentication, retries and redirects.

Every exchange goes through `Registry.exchange`. It builds the URL, adds the Authorization header,
answers a 401 once, follows redirects (the header is dropped when they leave the registry), and
turns a bad response into an error. `request` retries after a broken connection, 408, 429 and 5xx.
A caller that streams a body makes one exchange at a time and handles `TransientFailure` itself,
because only the caller can produce the body again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, TypeVar
from urllib.parse import urljoin, urlsplit

from lapwing.errors import RegistryError
from lapwing.registry.connection import Body, ConnectionFailed
from lapwing.registry.credentials import Credentials
from lapwing.registry.response import (
    MAX_RETRY_AFTER_S,
    RETRY_STATUSES,
    FullResponse,
    Response,
    TransientFailure,
    connection_error,
    downgrade_error,
    status_error,
)
from lapwing.registry.tokens import Authorizer, Scopes
from lapwing.registry.transport import Transport
from lapwing.stack.image import HUB_API, is_loopback
from lapwing.system.retry import RetryPolicy

MAX_REDIRECTS = 5
T = TypeVar("T")


class Request(NamedTuple):
    """A request. `url` is a path of the registry, or a URL that the registry gave."""

    method: str
    url: str
    headers: Mapping[str, str] = MappingProxyType({})
    body: Body = b""


class HostOptions(NamedTuple):
    """How the user wants one registry to be reached."""

    plain_http: bool = False
    """Use HTTP without TLS, also for a login."""
    authority: Path | None = None
    """A file of certificates to trust beside the system's."""


_DEFAULT_OPTIONS = HostOptions()


class Registry:
    """The registry at `host`.

    A registry on this machine, and any with `allow_plain`, is asked whether it uses TLS; if not,
    plain HTTP is used. A login is sent over plain HTTP only on this machine, or where `options`
    name this registry.
    """

    def __init__(
        self,
        host: str,
        transport: Transport,
        credentials: Credentials,
        *,
        allow_plain: bool = False,
        options: HostOptions = _DEFAULT_OPTIONS,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.host = host
        self.retry = retry or RetryPolicy()
        self._allow_plain = is_loopback(host) or (allow_plain and host != HUB_API)
        self._options = options
        self._transport = transport
        self._responded = False
        self.holders: dict[str, str] = {}
        """A repository here for each blob that this command has pushed or found."""
        self._scheme = ""
        self._choosing = asyncio.Lock()
        self._authorizer = Authorizer(host, credentials, self._fetch)

    async def request(
        self, request: Request, *, scopes: Scopes, ok: tuple[int, ...] = (200,)
    ) -> FullResponse:
        """Make a request with short bodies, with retries.

        Raises RegistryError, or one of its kinds, for a status that is not in `ok`.
        """

        async def attempt() -> FullResponse:
            async with self.exchange(request, scopes=scopes, ok=ok) as response:
                body = b"" if request.method == "HEAD" else await response.read()
                return FullResponse(response.status, response.headers, body)

        return await self._retrying(attempt)

    async def _retrying(self, attempt: Callable[[], Awaitable[T]]) -> T:
        failed = 0
        while True:
            try:
                return await attempt()
            except TransientFailure as failure:
                failed += 1
                await self.wait(failed, failure)

    async def wait(self, failed: int, failure: TransientFailure) -> None:
        """Wait before the next attempt; raise the error if there is none left.

        A registry that never responded gets two attempts: its name is more likely to be wrong than
        the network.
        """
        after = failure.retry_after
        attempts = self.retry.attempts if self._responded else min(2, self.retry.attempts)
        if failed >= attempts or (after is not None and after > MAX_RETRY_AFTER_S):
            raise failure.error from failure
        await asyncio.sleep(self.retry.delay(failed) if after is None else after)

    @contextlib.asynccontextmanager
    async def exchange(
        self, request: Request, *, scopes: Scopes, ok: tuple[int, ...] = (200,)
    ) -> AsyncIterator[Response]:
        """Make one exchange.

        Raises TransientFailure where a retry may succeed, else RegistryError.
        """
        if not self._scheme:
            await self._choose_scheme()
        request = request._replace(url=self.url(request.url))
        for _ in range(MAX_REDIRECTS):
            async with self._authorized(request, scopes) as response:
                if response.status in (301, 302, 303, 307, 308) and response.status not in ok:
                    if not isinstance(request.body, bytes):
                        raise RegistryError(f"{self.host} redirects in the middle of an upload.")
                    request = request._replace(url=self._redirected(request.url, response))
                    continue
                if response.status in ok:
                    yield response
                    return
                raise await status_error(request.method, request.url, response)
        raise RegistryError(f"Too many redirects from {self.host}.")

    async def _choose_scheme(self) -> None:
        async with self._choosing:
            plain = self._options.plain_http
            if not plain and self._allow_plain and not self._scheme:
                plain = not await self._transport.has_tls(self.host)
            if plain:
                trusted = self._options.plain_http or is_loopback(self.host)
                self._authorizer.plain_login = trusted
            self._scheme = self._scheme or ("http" if plain else "https")

    def url(self, path: str) -> str:
        """Return the URL of a path, or of a `Location`.

        One on the same host keeps our scheme, because registries behind a proxy often do not know
        theirs.
        """
        if path.startswith("/") and not path.startswith("//"):
            return f"{self._scheme}://{self.host}{path}"
        whole = urlsplit(urljoin(f"{self._scheme}://{self.host}/", path))
        if whole.netloc == self.host:
            whole = whole._replace(scheme=self._scheme)
        elif whole.scheme != "https" and self._scheme == "https":
            raise downgrade_error(self.host)
        return whole.geturl()

    @contextlib.asynccontextmanager
    async def _authorized(self, request: Request, scopes: Scopes) -> AsyncIterator[Response]:
        """Make an exchange with authentication.

        A 401 is answered once, where the body can be sent again.
        """
        ours = urlsplit(request.url).netloc == self.host
        used = await self._authorizer.header(scopes) if ours else None
        async with self._send(request, used) as response:
            if response.status != 401 or not ours:
                yield response
                return
            challenge = response.headers.get("www-authenticate", "")
            if not await self._authorizer.handle_unauthorized(challenge, used, scopes):
                raise self._authorizer.login_refused()
        header = await self._authorizer.header(scopes)
        if not isinstance(request.body, bytes):
            # The stream is consumed; the caller makes another.
            error = self._authorizer.login_refused()
            raise TransientFailure(error, retry_after=0.0, body_sent=False)
        async with self._send(request, header) as response:
            if response.status == 401:
                raise self._authorizer.login_refused()
            yield response

    @contextlib.asynccontextmanager
    async def _send(self, request: Request, authorization: str | None) -> AsyncIterator[Response]:
        host = urlsplit(request.url).netloc
        headers = {"Host": host, "User-Agent": "lapwing", **request.headers}
        if authorization:
            headers["Authorization"] = authorization
        if request.method in ("POST", "PUT", "PATCH") and isinstance(request.body, bytes):
            headers["Content-Length"] = str(len(request.body))
        try:
            async with self._transport.exchange(
                request.method, request.url, headers, request.body
            ) as exchange:
                self._responded = True
                yield Response(exchange, self.host)
        except ConnectionFailed as error:
            raise TransientFailure(connection_error(host, error)) from error

    async def _fetch(
        self, method: str, url: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        """Make a request to the token server, with the same retries."""

        async def attempt() -> tuple[int, bytes]:
            async with self._send(Request(method, url, headers, body), None) as response:
                if response.status in RETRY_STATUSES:
                    raise await status_error(method, url, response)
                return response.status, await response.read()

        return await self._retrying(attempt)

    def _redirected(self, url: str, response: Response) -> str:
        target = urljoin(url, response.headers.get("location", ""))
        if url.startswith("https:") and not target.startswith("https:"):
            raise downgrade_error(self.host)
        return target
