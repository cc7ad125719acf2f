"""One registry: requests with a login, made again when that can help, and answers in words.

Every exchange goes through `Registry.exchange`. It makes the URL, adds the Authorization header,
answers a 401 once, follows redirects (the header stays behind when they leave the registry), waits
and tries again after a dead connection, 408, 429 and 5xx, and turns everything else into an error
that says which registry answered what. Whoever streams a body makes one exchange at a time and gets
`Interrupted` for what another try may mend, because only they can make the body again.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from lapwing.errors import RegistryError
from lapwing.registry import challenge as challenges
from lapwing.registry.answers import (
    AGAIN,
    LONGEST_WAIT,
    Answer,
    Interrupted,
    Short,
    broken,
    failure,
    unencrypted,
)
from lapwing.registry.credentials import Credentials
from lapwing.registry.streams import Broken
from lapwing.registry.tokens import Authorizer, Scopes
from lapwing.registry.transport import Transport
from lapwing.registry.wire import Content
from lapwing.stack.image import is_loopback

REDIRECTS = 5


@dataclass(frozen=True, slots=True)
class Patience:
    """How often to try, and the seconds before the second try; each next pause is twice as long,
    up to `longest`."""

    tries: int = 6
    first: float = 0.25
    longest: float = 10.0

    def pause(self, failed: int) -> float:
        """Seconds to wait after `failed` tries, spread so that many do not come back at once."""
        whole: float = min(self.first * 2 ** (failed - 1), self.longest)
        return whole * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret


class Registry:
    """The registry at `host`. Plain HTTP is spoken to this machine, or where it is allowed."""

    def __init__(
        self,
        host: str,
        transport: Transport,
        credentials: Credentials,
        *,
        plain_http: bool = False,
        patience: Patience | None = None,
    ) -> None:
        self.host = host
        self.patience = patience or Patience()
        self._transport = transport
        self._answered = False
        self._plain = plain_http or is_loopback(host)
        self._base = f"{'http' if self._plain else 'https'}://{host}"
        self._authorizer = Authorizer(host, credentials, self._fetch, plain_http=plain_http)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        scopes: Scopes,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        good: tuple[int, ...] = (200,),
    ) -> Short:
        """An exchange with short bodies, tried until it succeeds or patience ends.

        Raises RegistryError, or one of its kinds, for a status that is not `good`.
        """

        async def once() -> Short:
            given = {**(headers or {}), "Content-Length": str(len(body))} if body else headers
            async with self.exchange(
                method, path, scopes=scopes, headers=given, content=body, good=good
            ) as answer:
                content = b"" if method == "HEAD" else await answer.body()
                return Short(answer.status, answer.headers, content)

        failed = 0
        while True:
            try:
                return await once()
            except Interrupted as interrupted:
                failed += 1
                await self.wait(failed, interrupted)

    async def wait(self, failed: int, interrupted: Interrupted) -> None:
        """Wait before the next try. Raises the error if there is to be none: soon, if the registry
        has never answered, for then its name is more likely to be wrong than its network."""
        after = interrupted.after
        tries = self.patience.tries if self._answered else min(2, self.patience.tries)
        if failed >= tries or (after is not None and after > LONGEST_WAIT):
            raise interrupted.error from interrupted
        await asyncio.sleep(self.patience.pause(failed) if after is None else after)

    @contextlib.asynccontextmanager
    async def exchange(
        self,
        method: str,
        path: str,
        *,
        scopes: Scopes,
        headers: Mapping[str, str] | None = None,
        content: Content = b"",
        good: tuple[int, ...] = (200,),
    ) -> AsyncIterator[Answer]:
        """One exchange. `path` is a path of the registry, or a URL that it gave.

        Raises Interrupted for what another try may mend, else RegistryError.
        """
        url = self.url(path)
        for _ in range(REDIRECTS):
            async with self._authorized(method, url, scopes, headers or {}, content) as answer:
                if answer.status in (301, 302, 303, 307, 308) and answer.status not in good:
                    if not isinstance(content, bytes):
                        raise RegistryError(f"{self.host} redirects an upload in the middle.")
                    url = self._redirected(url, answer)
                    continue
                if answer.status in good:
                    yield answer
                    return
                raise await failure(method, url, answer)
        raise RegistryError(f"{self.host} sends us from one place to the next without end.")

    def url(self, path: str) -> str:
        """The URL of a path, or of a `Location`: one on the same host keeps our scheme, because
        registries behind a proxy often do not know theirs."""
        whole = urlsplit(urljoin(self._base + "/", path))
        if whole.netloc == self.host:
            whole = whole._replace(scheme="http" if self._plain else "https")
        elif whole.scheme != "https" and not self._plain:
            raise unencrypted(self.host)
        return whole.geturl()

    @contextlib.asynccontextmanager
    async def _authorized(
        self,
        method: str,
        url: str,
        scopes: Scopes,
        headers: Mapping[str, str],
        content: Content,
    ) -> AsyncIterator[Answer]:
        """One exchange with a login; a 401 is answered once, where the body can be sent again."""
        ours = urlsplit(url).netloc == self.host
        header = await self._authorizer.header(scopes) if ours else None
        async with self._plainly(method, url, headers, content, header) as answer:
            if answer.status != 401 or not ours:
                yield answer
                return
            challenge = challenges.choose(answer.headers.get("www-authenticate", ""))
            if not await self._authorizer.refuse(challenge, header, scopes):
                raise self._authorizer.refused()
        header = await self._authorizer.header(scopes)
        if not isinstance(content, bytes):
            # A stream is used up; whoever made it makes another.
            raise Interrupted(self._authorizer.refused(), after=0.0, taken=False)
        async with self._plainly(method, url, headers, content, header) as answer:
            if answer.status == 401:
                raise self._authorizer.refused()
            yield answer

    @contextlib.asynccontextmanager
    async def _plainly(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: Content,
        authorization: str | None,
    ) -> AsyncIterator[Answer]:
        given = {"Host": urlsplit(url).netloc, "User-Agent": "lapwing", **headers}
        if authorization:
            given["Authorization"] = authorization
        if method in ("POST", "PUT", "PATCH") and "Content-Length" not in given:
            given["Content-Length"] = str(len(content)) if isinstance(content, bytes) else "0"
        try:
            async with self._transport.exchange(method, url, given, content) as exchange:
                self._answered = True
                yield Answer(exchange, self.host)
        except Broken as error:
            raise Interrupted(broken(urlsplit(url).netloc, error)) from error

    async def _fetch(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, bytes]:
        """Ask the token server, with the same patience."""
        failed = 0
        while True:
            try:
                async with self._plainly(method, url, headers, body or b"", None) as answer:
                    if answer.status in AGAIN:
                        raise await failure(method, url, answer)
                    return answer.status, await answer.body()
            except Interrupted as interrupted:
                failed += 1
                await self.wait(failed, interrupted)

    def _redirected(self, url: str, answer: Answer) -> str:
        target = urljoin(url, answer.headers.get("location", ""))
        if url.startswith("https:") and not target.startswith("https:"):
            raise unencrypted(self.host)
        return target
