"""Authentication: from a registry's challenge to the Authorization header of a request.

The first request has no header. Its 401 carries a challenge (WWW-Authenticate); from then on every
request gets its header beforehand, because a streamed body cannot be sent twice. Tokens are cached
by scopes, fetched once at a time for each, and renewed before they expire. If a token is refused
all the same, `handle_unauthorized` drops it and the request is repeated once with a new one.

Sources: RFC 9110, 11.6.1 (challenges); the distribution project's token authentication
specification (`docs/spec/auth`).
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

from lapwing.errors import RegistryError, RegistryLoginError
from lapwing.registry.credentials import Credentials, Login
from lapwing.stack.image import HUB, HUB_API, is_loopback
from lapwing.system.registry_variable import registry_variable

Scopes = tuple[str, ...]
Fetch = Callable[[str, str, dict[str, str], bytes], Awaitable[tuple[int, bytes]]]
"""Method, URL, headers, body -> status, body: a request to the token server."""

DEFAULT_EXPIRY_S = 60.0
"""Source: token specification: the lifetime of a token that gives no `expires_in`."""
EXPIRY_MARGIN = 0.2
"""The last part of its lifetime in which a token is not used any more."""

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'\s*({_WORD})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')
_SCHEME = re.compile(rf"[\s,]*({_WORD})(?=\s|,|$)(?!\s*=)")
_TOKEN68 = re.compile(r"\s+[A-Za-z0-9._~+/-]+=*\s*(?:,|$)")


class Challenge(NamedTuple):
    """One way to authenticate. `scheme` is in lower case; `realm` is a URL for Bearer."""

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""
    error: str = ""


def parse_challenges(header: str) -> list[Challenge]:
    """Parse the challenges of a WWW-Authenticate header, up to the first invalid one."""
    found = []
    position = 0
    while scheme := _SCHEME.match(header, position):
        position = scheme.end()
        parameters: dict[str, str] = {}
        if not _PARAMETER.match(header, position) and (token := _TOKEN68.match(header, position)):
            position = token.end()
        while parameter := _PARAMETER.match(header, position):
            name, quoted, bare = parameter.groups()
            value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else bare
            parameters.setdefault(name.lower(), value)
            position = parameter.end()
        known = {k: parameters.get(k, "") for k in ("realm", "service", "scope", "error")}
        found.append(Challenge(scheme[1].lower(), **known))
    return found


def choose_challenge(header: str) -> Challenge | None:
    """Return the challenge to answer: Bearer before Basic; None if there is neither."""
    found = parse_challenges(header)
    for scheme in ("bearer", "basic"):
        for challenge in found:
            if challenge.scheme == scheme and (scheme == "basic" or challenge.realm):
                return challenge
    return None


@dataclass(slots=True)
class _Token:
    text: str = field(repr=False)
    until: float
    """Monotonic time up to which it is used."""


class Authorizer:
    """The Authorization headers for one registry, at `host`."""

    def __init__(self, host: str, credentials: Credentials, fetch: Fetch) -> None:
        self._host = host
        self._credentials = credentials
        self._fetch = fetch
        self.plain_login: bool | None = None
        """Whether a login may be sent without TLS; None for a registry that uses TLS."""
        self._challenge: Challenge | None = None
        self._tokens: dict[Scopes, _Token] = {}
        self._locks: dict[Scopes, asyncio.Lock] = {}

    async def header(self, scopes: Scopes) -> str | None:
        """Return the header for a request that needs `scopes`; None where none is required.

        Raises RegistryLoginError if the login is missing or refused, RegistryError if the token
        server fails.
        """
        challenge = self._challenge
        if challenge is None:
            return None
        if challenge.scheme == "basic":
            login = await self._login(scopes)
            if login is None or not login.user:
                raise self._login_missing()
            return login.basic
        async with self._locks.setdefault(scopes, asyncio.Lock()):
            token = self._tokens.get(scopes)
            if token is None or time.monotonic() >= token.until:
                token = self._tokens[scopes] = await self._new_token(challenge, scopes)
            return f"Bearer {token.text}"

    async def handle_unauthorized(self, header: str, used: str | None, scopes: Scopes) -> bool:
        """Handle a 401 with this challenge header to a request sent with `used`.

        Return whether to repeat the request.
        """
        challenge = choose_challenge(header)
        if challenge is None:
            return False
        self._challenge = challenge
        if challenge.scheme == "basic":
            return used is None
        token = self._tokens.get(scopes)
        if token and used == f"Bearer {token.text}":
            del self._tokens[scopes]
        return True

    def login_refused(self) -> RegistryLoginError:
        """Return the error for a login that the registry refuses."""
        return RegistryLoginError(
            f"Authentication failed at {self._host} (401).",
            hint=f"Run `docker login {self._host}` again, or correct the token in the environment.",
        )

    def _login_missing(self) -> RegistryLoginError:
        name = HUB if self._host == HUB_API else self._host
        return RegistryLoginError(
            f"{name} requires a login, and none is configured.",
            hint=f"Run `docker login {name}`, or set {registry_variable(name)}_TOKEN.",
        )

    async def _new_token(self, challenge: Challenge, scopes: Scopes) -> _Token:
        realm = urlsplit(challenge.realm)
        login = await self._login(scopes)
        if realm.scheme != "https" and login and not self._may_be_plain(realm.hostname or ""):
            raise RegistryLoginError(
                f"{self._host} asks for the password over an unencrypted connection, at "
                f"{realm.netloc or 'an invalid token realm'}; it was not sent.",
                hint="Report it to the registry's administrator: the token realm must be https.",
            )
        method, url, headers, body = _token_request(challenge, scopes, login)
        requested = time.monotonic()
        status, answer = await self._fetch(method, url, headers, body)
        if status in (400, 401, 403):
            raise self.login_refused() if login else self._login_missing()
        if status != 200:
            raise RegistryError(
                f"The token server {realm.netloc} of {self._host} responded {status}.",
                hint="Try again later.",
            )
        return _parse_token(answer, requested, self._host)

    def _may_be_plain(self, host: str) -> bool:
        return is_loopback(host) or bool(self.plain_login and host == _hostname(self._host))

    async def _login(self, scopes: Scopes) -> Login | None:
        """Return the login for a repository. Raises RegistryLoginError if it must not be sent."""
        repository = scopes[0].split(":")[1] if scopes else ""
        login = await self._credentials.login(self._host, repository)
        if login and self.plain_login is False:
            raise RegistryLoginError(
                f"{self._host} asks for a login and does not use TLS; the password was not sent.",
                hint="Use a registry with TLS. On a trusted network, `lapwing image copy` sends it "
                "with --src-plain-http or --dst-plain-http.",
            )
        return login


def _hostname(host: str) -> str:
    return urlsplit(f"//{host}").hostname or ""


def _token_request(
    challenge: Challenge, scopes: Scopes, login: Login | None
) -> tuple[str, str, dict[str, str], bytes]:
    """Return the method, URL, headers and body of the request for a token."""
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
    return "GET", f"{challenge.realm}{joint}{urlencode(query)}", headers, b""


def _parse_token(answer: bytes, requested: float, host: str) -> _Token:
    try:
        found: dict[str, Any] = json.loads(answer)
        text = found.get("token") or found.get("access_token")
        lifetime = float(found.get("expires_in") or DEFAULT_EXPIRY_S)
    except (ValueError, TypeError, AttributeError):
        text, lifetime = None, 0.0
    if not isinstance(text, str) or not text.isascii() or any(c.isspace() for c in text):
        raise RegistryError(
            f"The token server of {host} sent an invalid token.", hint="Try again later."
        )
    return _Token(text, requested + lifetime * (1 - EXPIRY_MARGIN))
