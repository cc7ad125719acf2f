"""The REST API of a forge: requests with a token, retries where they are safe, and errors.

A read is retried after a broken connection, a 5xx or a rate limit. A change is retried only when
the forge certainly did nothing (no connection, a rate limit); otherwise its outcome is unknown
(`OutcomeUnknown`), and the caller looks first whether it was done. So a forge that responds 500
after it created a release gets no second one.

The token goes to the forge's own host only: redirects are not followed, and no error quotes it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from lapwing.errors import ForgeError, ForgeLoginError
from lapwing.registry.transport import proxy_for
from lapwing.system.retry import RetryPolicy
from lapwing.system.trust import tls_context

TIMEOUT = httpx.Timeout(30.0, read=120.0, write=120.0)
MAX_WAIT_S = 120.0
"""How long a rate limit is waited for."""
MAX_RESPONSE_BYTES = 16 * 1024 * 1024
RETRY_HINT = "Run the command again: completed steps are not repeated."

T = TypeVar("T")


class OutcomeUnknown(Exception):
    """Whether the forge made a change is unknown; `error` is what to raise if it did not."""

    def __init__(self, error: ForgeError) -> None:
        super().__init__(str(error))
        self.error = error


class ForgeApi:
    """The API of one forge. `name` is its name in errors."""

    def __init__(
        self,
        base: str,
        name: str,
        token: str | None,
        headers: Mapping[str, str],
        environ: Mapping[str, str],
    ) -> None:
        self.base = base.rstrip("/")
        self.name = name
        self.retry = RetryPolicy()
        self._token = token
        parts = urlsplit(self.base)
        self._client = httpx.AsyncClient(
            headers={"User-Agent": "lapwing", **headers},
            timeout=TIMEOUT,
            trust_env=False,
            verify=tls_context(environ),
            proxy=proxy_for(environ, parts.scheme, parts.hostname or ""),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def get(self, path: str, *, allow_missing: bool = False) -> Any:
        """Return the JSON at a path; None for a 404 with `allow_missing`."""
        failed = 0
        while True:
            try:
                response = await self._send("GET", path, {})
                break
            except OutcomeUnknown as unknown:
                failed += 1
                if failed >= self.retry.attempts:
                    raise unknown.error from unknown
                await asyncio.sleep(self.retry.delay(failed))
        if response.status_code == 404 and allow_missing:
            return None
        self._check(response)
        return self._json(response)

    async def delete(self, path: str) -> None:
        """Delete something; that it is gone already is no error."""
        await self.change("DELETE", path, allow_missing=True)

    async def change(
        self, method: str, path: str, *, allow_missing: bool = False, **options: Any
    ) -> Any:
        """Make a change, once; return the response's JSON, None if empty or an allowed 404.

        Raises OutcomeUnknown if it may have been made.
        """
        response = await self._send(method, path, options)
        if response.status_code == 404 and allow_missing:
            return None
        if response.status_code == 409:  # Another job of CI may have made the same change.
            raise OutcomeUnknown(self._status_error(response))
        self._check(response)
        return self._json(response) if response.content else None

    async def _send(self, method: str, path: str, options: Mapping[str, Any]) -> httpx.Response:
        """Send one request; raise OutcomeUnknown for a 5xx or a broken connection.

        A request refused by a rate limit had no effect, and is sent again after it.
        """
        failed = 0
        while True:
            url = path if "://" in path else self.base + path
            try:
                response = await self._client.request(method, url, **options)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failed += 1
                if failed >= min(3, self.retry.attempts):
                    raise self._connection_error(error) from error
                await asyncio.sleep(self.retry.delay(failed))
                continue
            except httpx.HTTPError as error:
                raise OutcomeUnknown(self._connection_error(error)) from error
            wait = _rate_limit(response)
            if wait is None:
                if response.status_code >= 500:
                    raise OutcomeUnknown(self._status_error(response))
                return response
            failed += 1
            if wait > MAX_WAIT_S or failed >= self.retry.attempts:
                raise ForgeError(
                    f"{self.name} limits requests for another {wait:.0f} s.",
                    hint=f"After that: {RETRY_HINT[0].lower()}{RETRY_HINT[1:]}",
                )
            await asyncio.sleep(max(wait, self.retry.delay(failed)))

    def _check(self, response: httpx.Response) -> None:
        """Raise the error for a status of 300 and above."""
        status = response.status_code
        if status < 300:
            return
        if status < 400:
            location = response.headers.get("location", "another address")
            raise ForgeError(
                f"{self.name} has moved to {location}.",
                hint="Correct the remote with `git remote set-url`.",
            )
        if status == 401:
            why = "no token is set" if self._token is None else "the token is invalid or expired"
            raise ForgeLoginError(
                f"Authentication failed at {self.name} (401): {why}.",
                hint="Set LAPWING_FORGE_TOKEN to a valid token.",
                detail=self._message(response),
            )
        if status == 403:
            raise ForgeLoginError(
                f"{self.name} refuses the request (403): the token lacks a permission.",
                hint="The token needs to write the repository: scope `write:repository` on Gitea, "
                "`contents: write` on GitHub. A protected tag or branch has to allow its owner.",
                detail=self._message(response),
            )
        raise self._status_error(response)

    def _status_error(self, response: httpx.Response) -> ForgeError:
        hints = {
            404: "Check the remote, and that the token can read the repository.",
            413: "The file is larger than the forge allows.",
        }
        request, status = response.request, response.status_code
        return ForgeError(
            f"{self.name} responded {status} to {request.method} {request.url.path}.",
            hint=hints.get(status) or RETRY_HINT,
            detail=self._message(response),
        )

    def _connection_error(self, error: httpx.HTTPError) -> ForgeError:
        why = self._clean(str(error) or type(error).__name__)
        return ForgeError(f"Cannot connect to {self.name}: {why}.", hint=RETRY_HINT)

    def _message(self, response: httpx.Response) -> str | None:
        """Return the message of a response, cut short and without the token."""
        try:
            content = response.json()
        except ValueError:
            is_text = response.headers.get("content-type", "").startswith("text/")
            return self._clean(response.text[:500] if is_text else "") or None
        if not isinstance(content, dict):
            return None
        errors = content.get("errors")
        parts = [content.get("message"), *(errors if isinstance(errors, list) else ())]
        message = "\n".join(p if isinstance(p, str) else json.dumps(p) for p in parts if p)
        return self._clean(message[:2000]) or None

    def _clean(self, text: str) -> str:
        text = text.replace(self._token, "***") if self._token else text
        return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()

    def _json(self, response: httpx.Response) -> Any:
        try:
            if len(response.content) > MAX_RESPONSE_BYTES:
                raise ValueError("too large")
            return response.json()
        except ValueError as error:
            raise ForgeError(
                f"{self.name} sent an invalid response to {response.request.url.path}: not JSON.",
                hint="Check the address of the forge; `forge: {kind, url}` in the file sets it.",
            ) from error


def _rate_limit(response: httpx.Response) -> float | None:
    """Return the seconds to wait where a rate limit refused the request, else None.

    Source: GitHub's documentation, "Rate limits for the REST API".
    """
    after = response.headers.get("retry-after", "")
    spent = response.headers.get("x-ratelimit-remaining") == "0"
    if response.status_code != 429 and not (response.status_code == 403 and (after or spent)):
        return None
    if after.isdigit():
        return float(after)
    reset = response.headers.get("x-ratelimit-reset", "")
    if spent and reset.isdigit():
        return max(float(reset) - time.time(), 1.0)
    return 1.0


def field(data: Any, key: str, kind: type[T]) -> T:
    """Return a field of an object; a null list is empty. Raises ForgeError."""
    value = data.get(key) if isinstance(data, dict) else None
    if value is None and kind is list:
        return kind()
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _unexpected(f"no valid `{key}`")
    return value


def entries(data: Any) -> list[Any]:
    """Return a list. Raises ForgeError."""
    if not isinstance(data, list):
        raise _unexpected("not a list")
    return data


def _unexpected(why: str) -> ForgeError:
    return ForgeError(
        f"The forge sent an unexpected response: {why}.",
        hint="Check that `forge:` in the stack file names the right kind of forge.",
    )
