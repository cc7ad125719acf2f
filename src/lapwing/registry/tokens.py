"""Answering a registry's challenge: the Authorization header of a request.

A registry is first asked without a header. Its 401 says how to log in; from then on every request
gets its header beforehand, because a streamed body cannot be sent twice. Tokens are kept by what
they allow (their scopes), one is fetched at a time for each, and one that is about to end is
replaced before it does. Where a token is refused in the middle all the same, `refuse` drops it and
the request is made again with a new one, once.

Source: the distribution project's token authentication specification (`docs/spec/auth`).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from lapwing.errors import RegistryError, RegistryLoginError
from lapwing.registry.challenge import Challenge
from lapwing.registry.credentials import Credentials, Login
from lapwing.stack.image import is_loopback

Scopes = tuple[str, ...]
Fetch = Callable[[str, str, dict[str, str], bytes | None], Awaitable[tuple[int, bytes]]]
"""Method, URL, headers, body -> status, body: how the token server is asked."""

SHORTEST = 60.0
"""Seconds that a token lives where the server does not say."""
MARGIN = 0.2
"""The part of its life, at its end, in which a token is not used any more."""


@dataclass(slots=True)
class _Token:
    text: str = field(repr=False)
    until: float
    """Monotonic time up to which it is used."""


class Authorizer:
    """The Authorization headers for one registry, at `host`."""

    def __init__(
        self, host: str, credentials: Credentials, fetch: Fetch, *, plain_http: bool
    ) -> None:
        self._host = host
        self._credentials = credentials
        self._fetch = fetch
        self._plain_http = plain_http
        self._challenge: Challenge | None = None
        self._tokens: dict[Scopes, _Token] = {}
        self._locks: dict[Scopes, asyncio.Lock] = {}

    async def header(self, scopes: Scopes) -> str | None:
        """The header for a request that needs `scopes`; None where none is asked for.

        Raises RegistryLoginError if the login is missing or refused, RegistryError if the token
        server fails.
        """
        challenge = self._challenge
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            login = await self._login()
            if login is None or not login.user:
                raise self._missing()
            return login.basic
        async with self._locks.setdefault(scopes, asyncio.Lock()):
            token = self._tokens.get(scopes)
            if token is None or time.monotonic() >= token.until:
                token = self._tokens[scopes] = await self._new(challenge, scopes)
            return f"Bearer {token.text}"

    async def refuse(self, challenge: Challenge | None, used: str | None, scopes: Scopes) -> bool:
        """Take note of a 401 on a request sent with `used`; whether to try again."""
        if challenge is None:
            return False
        first = self._challenge is None
        self._challenge = challenge
        if challenge.scheme == "basic":
            return used is None
        token = self._tokens.get(scopes)
        if token and used == f"Bearer {token.text}":
            del self._tokens[scopes]
        return first or used is not None

    def refused(self) -> RegistryLoginError:
        """The error for a login that is not taken."""
        return RegistryLoginError(
            f"{self._host} does not take the login.",
            hint=f"Log in again (`docker login {self._host}`), or correct the token that the "
            "environment gives.",
        )

    def _missing(self) -> RegistryLoginError:
        return RegistryLoginError(
            f"{self._host} wants a login, and there is none for it.",
            hint=f"`docker login {self._host}` stores one, or set "
            f"LAPWING_REGISTRY_{''.join(c if c.isalnum() else '_' for c in self._host.upper())}"
            "_TOKEN.",
        )

    async def _login(self) -> Login | None:
        return await self._credentials.of(self._host)

    async def _new(self, challenge: Challenge, scopes: Scopes) -> _Token:
        realm = urlsplit(challenge.realm)
        login = await self._login()
        if realm.scheme != "https" and login and not self._may_be_plain(realm.hostname or ""):
            raise RegistryLoginError(
                f"{self._host} wants the password sent to {realm.netloc or 'nowhere'} without "
                "encryption; it was not sent.",
                hint="Tell the people who run the registry; its token realm has to be https.",
            )
        method, url, headers, body = _ask(challenge, scopes, login)
        asked = time.monotonic()
        status, answer = await self._fetch(method, url, headers, body)
        if status in (400, 401, 403):
            raise self.refused() if login else self._missing()
        if status != 200:
            raise RegistryError(
                f"The token server {realm.netloc} of {self._host} answers {status}.",
                hint="Try again later.",
            )
        return _read(answer, asked, self._host)

    def _may_be_plain(self, host: str) -> bool:
        return is_loopback(host) or (self._plain_http and host == self._host.partition(":")[0])


def _ask(
    challenge: Challenge, scopes: Scopes, login: Login | None
) -> tuple[str, str, dict[str, str], bytes | None]:
    """The request for a token. Pure."""
    wanted = scopes or tuple(challenge.scope.split())
    query = [("service", challenge.service)] if challenge.service else []
    if login and login.identity:
        form = [
            *query,
            ("grant_type", "refresh_token"),
            ("client_id", "lapwing"),
            ("refresh_token", login.identity),
            ("scope", " ".join(wanted)),
        ]
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return "POST", challenge.realm, headers, urlencode(form).encode()
    query += [("scope", scope) for scope in wanted]
    if login:
        query.append(("account", login.user))
    joint = "&" if "?" in challenge.realm else "?"
    headers = {"Authorization": login.basic} if login else {}
    return "GET", f"{challenge.realm}{joint}{urlencode(query)}", headers, None


def _read(answer: bytes, asked: float, host: str) -> _Token:
    try:
        found: dict[str, Any] = json.loads(answer)
        text = found.get("token") or found.get("access_token")
        life = float(found.get("expires_in") or SHORTEST)
    except (ValueError, TypeError, AttributeError):
        text, life = None, 0.0
    if not isinstance(text, str) or not text.isascii() or any(c.isspace() for c in text):
        raise RegistryError(
            f"The token server of {host} answered something that is not a token.",
            hint="Try again later.",
        )
    return _Token(text, asked + life * (1 - MARGIN))
