"""Responses of registries, and what a bad one means: a retry, or an error.

A bad status is either a `TransientFailure` (a retry may succeed) or a RegistryError that says which
registry gave which status to which request. A registry's own message is quoted, cleaned and cut
short.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lapwing.errors import ImageMissingError, RegistryError
from lapwing.registry.connection import Bytes, ConnectionFailed, Exchange

MAX_MANIFEST_BYTES = 4 * 1024 * 1024
"""Source: distribution specification, "Pushing Manifests": what a registry has to accept."""
RETRY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
MAX_RETRY_AFTER_S = 120.0
"""A registry that asks for a longer wait is not retried."""


class TransientFailure(Exception):
    """An exchange that a retry may complete.

    `error` is what to raise if it does not; `retry_after` the seconds that the registry asks to
    wait; `body_sent` whether it may have received a part of the body.
    """

    def __init__(
        self, error: RegistryError, retry_after: float | None = None, *, body_sent: bool = True
    ) -> None:
        super().__init__(str(error))
        self.error = error
        self.retry_after = retry_after
        self.body_sent = body_sent


class Response:
    """A registry's response whose body is not read yet."""

    def __init__(self, exchange: Exchange, host: str) -> None:
        self._exchange = exchange
        self._host = host
        self.status = exchange.status
        self.headers = exchange.headers

    @property
    def length(self) -> int | None:
        """Content-Length in bytes, if given."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdecimal() else None

    async def stream(self) -> AsyncGenerator[Bytes, None]:
        """Stream the body. Raises TransientFailure if the connection breaks."""
        try:
            async for data in self._exchange.body():
                yield data
        except ConnectionFailed as error:
            raise TransientFailure(connection_error(self._host, error)) from error

    async def read(self, limit: int = MAX_MANIFEST_BYTES) -> bytes:
        """Read the whole body. Raises RegistryError if it is longer than `limit` bytes."""
        content = bytearray()
        async for data in self.stream():
            content += data
            if len(content) > limit:
                raise RegistryError(
                    f"{self._host} sent a response of more than {limit // 1024} KiB, the limit "
                    "for a manifest or a list."
                )
        return bytes(content)


class FullResponse(NamedTuple):
    """A response with its whole body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def status_error(method: str, url: str, response: Response) -> Exception:
    """Return what a bad status means: a TransientFailure or a RegistryError."""
    reasons = "" if method == "HEAD" else await _reasons(response)
    parts = urlsplit(url)
    message = f"{parts.netloc} responded {response.status}{reasons} to {method} {parts.path}."
    if response.status in RETRY_STATUSES:
        after = _retry_after(response.headers.get("retry-after", ""))
        hint = "Several attempts failed. Try again later."
        if response.status == 500 and method in ("POST", "PATCH", "PUT"):
            hint = (
                "Several attempts failed. If its storage is full, free space there (`lapwing image "
                "prune`), and run the command again."
            )
        if after is not None and after > MAX_RETRY_AFTER_S:
            hint = f"Try again in {after:.0f} seconds, as the registry asks."
        return TransientFailure(RegistryError(message, hint=hint), after)
    if response.status == 404:
        return ImageMissingError(message, hint="Check the repository, the tag and the digest.")
    if response.status == 403:
        return RegistryError(message, hint="The account has no permission for this repository.")
    return RegistryError(message)


async def _reasons(response: Response) -> str:
    """Return the errors in a response's body as one text; empty if there are none."""
    try:
        found: Any = json.loads(await response.read(65536))
        reasons = [f"{e.get('code', '')} {e.get('message', '')}".strip() for e in found["errors"]]
    except (ValueError, KeyError, TypeError, AttributeError, RegistryError, TransientFailure):
        return ""
    # The text goes to a terminal: control characters are removed.
    text = "".join(c if c.isprintable() else " " for c in "; ".join(reasons)[:300])
    return f" ({text})" if text else ""


def _retry_after(text: str) -> float | None:
    """Return the seconds of a Retry-After header: a number, or a date (RFC 9110, 10.2.3)."""
    if text.isdecimal():
        return float(text)
    import email.utils

    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def downgrade_error(host: str) -> RegistryError:
    """Return the error for a redirect from https to http."""
    return RegistryError(
        f"{host} redirects from https to http.",
        hint="Report it to the registry's administrator.",
    )


def connection_error(host: str, error: ConnectionFailed) -> RegistryError:
    """Return the error for a connection that broke or could not be made."""
    why = str(error)
    if error.reached:
        return RegistryError(
            f"The connection to {host} broke several times: {why}.",
            hint="Run the same command again: uploaded blobs are not sent again.",
        )
    hint = f"Check that {host} is the right host and that the registry is running."
    if "WRONG_VERSION_NUMBER" in why or "record layer" in why:
        hint = "The registry does not use TLS. If that is intended, add --plain-http."
    elif "CERTIFICATE" in why.upper():
        hint = (
            "Its certificate is not trusted: set SSL_CERT_FILE to the authority's certificate, or "
            "give it to `lapwing image copy` with --src-ca or --dst-ca."
        )
    return RegistryError(f"Cannot connect to {host}: {why}.", hint=hint)
