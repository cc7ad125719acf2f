"""What registries answer, and what becomes of it: bytes, another try, or an error in words.

A bad status is either `Interrupted` (another try may mend it) or a RegistryError that says who
answered what to which question. The words of a registry are quoted, cleaned and cut short.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from lapwing.errors import ImageMissingError, RegistryError
from lapwing.registry.streams import Broken, Piece
from lapwing.registry.wire import Exchange

SMALL = 4 * 1024 * 1024
"""Bytes of a manifest at most: what a registry has to take, by the distribution specification."""
AGAIN = frozenset({408, 429, 500, 502, 503, 504})
LONGEST_WAIT = 120.0
"""Seconds: a registry that asks for more is not waited for."""


class Interrupted(Exception):
    """An exchange that another try may bring to its end. `error` is what to raise if it does not;
    `after` the seconds that the registry asks to wait; `taken` whether it may have taken a part of
    the body."""

    def __init__(
        self, error: RegistryError, after: float | None = None, *, taken: bool = True
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.after = after
        self.taken = taken


class Answer:
    """A registry's answer whose body is still to be read."""

    def __init__(self, exchange: Exchange, host: str) -> None:
        self._exchange = exchange
        self._host = host
        self.status = exchange.status
        self.headers = exchange.headers

    @property
    def length(self) -> int | None:
        """Content-Length in bytes, if it is there."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdecimal() else None

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """The body as it comes. Raises Interrupted if the connection dies."""
        try:
            async for piece in self._exchange.pieces():
                yield piece
        except Broken as error:
            raise Interrupted(broken(self._host, error)) from error

    async def body(self, limit: int = SMALL) -> bytes:
        """The whole body. Raises RegistryError if it is longer than `limit` bytes."""
        found = bytearray()
        async for piece in self.pieces():
            found += piece
            if len(found) > limit:
                raise RegistryError(
                    f"{self._host} sends more than {limit // 1024} KiB where that is the most "
                    "that may come; it was not read further."
                )
        return bytes(found)


@dataclass(frozen=True, slots=True)
class Short:
    """An answer with its body, which is short."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def failure(method: str, url: str, answer: Answer) -> Exception:
    """What a bad status means: Interrupted or a RegistryError."""
    told = "" if method == "HEAD" else await _reasons(answer)
    path = urlsplit(url).path
    what = f"{urlsplit(url).netloc} answers {answer.status}{told} to {method} {path}"
    if answer.status in AGAIN:
        after = _retry_after(answer.headers.get("retry-after", ""))
        hint = "It was asked several times. Try again later."
        if after is not None and after > LONGEST_WAIT:
            hint = f"It asks to wait {after:.0f} seconds. Try again then."
        return Interrupted(RegistryError(what + ".", hint=hint), after)
    if answer.status == 404:
        return ImageMissingError(what + ".", hint="Look at the name, the tag and the digest.")
    if answer.status == 403:
        return RegistryError(
            what + ".", hint="The login may not do this there; ask for the right to."
        )
    return RegistryError(what + ".")


async def _reasons(answer: Answer) -> str:
    """The errors that a registry tells, as one text; nothing if it tells none."""
    try:
        found: Any = json.loads(await answer.body(65536))
        told = [f"{e.get('code', '')} {e.get('message', '')}".strip() for e in found["errors"]]
    except (ValueError, KeyError, TypeError, AttributeError, RegistryError, Interrupted):
        return ""
    # A registry's words go to a terminal: nothing in them may steer it.
    text = "".join(c if c.isprintable() else " " for c in "; ".join(told)[:300])
    return f" ({text})" if text else ""


def _retry_after(text: str) -> float | None:
    """Seconds that a Retry-After header asks for: a number, or a date (RFC 9110, 10.2.3)."""
    if text.isdecimal():
        return float(text)
    import email.utils

    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def unencrypted(host: str) -> RegistryError:
    return RegistryError(
        f"{host} sends us from an encrypted connection to one that is not.",
        hint="Tell the people who run the registry.",
    )


def broken(host: str, error: Broken) -> RegistryError:
    if not error.reached:
        return RegistryError(
            f"{host} cannot be reached ({error}).", hint=_connect_hint(host, str(error))
        )
    return RegistryError(
        f"The connection to {host} broke off several times ({error}).",
        hint="Run the same command again: what has arrived is not sent again.",
    )


def _connect_hint(host: str, why: str) -> str:
    if "WRONG_VERSION_NUMBER" in why or "record layer" in why:
        return "It does not speak TLS. If that is right, use --plain-http."
    if "CERTIFICATE" in why.upper():
        return "Its certificate is not trusted here; SSL_CERT_FILE can name the authority's."
    return f"Look whether {host} is the right name and the registry runs."
