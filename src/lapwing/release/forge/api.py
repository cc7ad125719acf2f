"""A forge's REST API: requests with a token, tried again where that is safe, and refusals in words.

Reading is tried again after a dead connection, a 5xx or a limit. What changes something is tried
again only when the forge certainly did nothing (no connection, a limit); else it is `Unclear`, and
whoever asked looks first whether it was done. So a forge that answers 500 after it made a release
gets no second one.

The token goes to the forge's own host only: redirects are not followed, and nothing quotes it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from lapwing.errors import ForgeError, ForgeLoginError
from lapwing.registry.registry import RetryPolicy
from lapwing.registry.transport import proxy_for, tls_context

TIMEOUT = httpx.Timeout(30.0, read=120.0, write=120.0)
LONGEST_WAIT = 120.0
"""Seconds at most that a forge's limit is waited for."""
LARGEST_ANSWER = 16 * 1024 * 1024


class Unclear(Exception):
    """Whether the forge did it cannot be told; `error` is what to raise if it did not."""

    def __init__(self, error: ForgeError) -> None:
        super().__init__(str(error))
        self.error = error


class Api:
    """One forge, as an async context. `name` is what people call it."""

    def __init__(
        self,
        base: str,
        name: str,
        token: str | None,
        headers: Mapping[str, str],
        environ: Mapping[str, str],
        patience: RetryPolicy | None = None,
    ) -> None:
        self.base = base.rstrip("/")
        self.name = name
        self.patience = patience or RetryPolicy()
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

    async def read(self, path: str, *, missing: bool = False) -> Any:
        """The JSON at a path; None for a 404 if `missing` says that this is an answer."""
        failed = 0
        while True:
            try:
                answer = await self._send("GET", path, {})
                break
            except Unclear as unclear:
                failed += 1
                if failed >= self.patience.attempts:
                    raise unclear.error from unclear
                await asyncio.sleep(self.patience.delay(failed))
        if answer.status_code == 404 and missing:
            return None
        return self._json(self._checked(answer))

    async def change(self, method: str, path: str, **given: Any) -> Any:
        """Change something, once; the answer's JSON, None if it is empty. Raises Unclear."""
        answer = await self._send(method, path, given)
        if answer.status_code == 409:  # Somebody else was quicker, another job of CI perhaps.
            raise Unclear(self._refused(answer))
        self._checked(answer)
        return self._json(answer) if answer.content else None

    async def _send(self, method: str, path: str, given: Mapping[str, Any]) -> httpx.Response:
        """One request and its answer; raises Unclear for a 5xx or a dead connection. What a limit
        refused was not done, and is sent again when the limit lets it."""
        failed = 0
        while True:
            url = path if "://" in path else self.base + path
            try:
                answer = await self._client.request(method, url, **given)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failed += 1
                if failed >= min(3, self.patience.attempts):
                    raise self._unreachable(error) from error
                await asyncio.sleep(self.patience.delay(failed))
                continue
            except httpx.HTTPError as error:
                raise Unclear(self._unreachable(error)) from error
            wait = _limit(answer)
            if wait is None:
                if answer.status_code >= 500:
                    raise Unclear(self._refused(answer))
                return answer
            failed += 1
            if wait > LONGEST_WAIT or failed >= self.patience.attempts:
                raise self._limited(wait)
            await asyncio.sleep(max(wait, self.patience.delay(failed)))

    def _checked(self, answer: httpx.Response) -> httpx.Response:
        status = answer.status_code
        if status < 300:
            return answer
        if status < 400:
            raise ForgeError(
                f"{self.name} has moved to {answer.headers.get('location', 'another address')}.",
                hint="Correct the remote with `git remote set-url`.",
            )
        if status == 401:
            raise self._login(answer)
        if status == 403:
            raise ForgeLoginError(
                f"{self.name} does not let this token do that.",
                hint="The token needs to write the repository: scope `write:repository` on Gitea, "
                "`contents: write` on GitHub. A protected tag or branch has to let its owner in.",
                detail=self._words(answer),
            )
        raise self._refused(answer)

    def _login(self, answer: httpx.Response) -> ForgeLoginError:
        what = "a token" if self._token is None else "another token: this one is wrong or expired"
        return ForgeLoginError(
            f"{self.name} wants {what}.",
            hint="Put one into LAPWING_FORGE_TOKEN.",
            detail=self._words(answer),
        )

    def _refused(self, answer: httpx.Response) -> ForgeError:
        hints = {
            404: "Is the remote right, and may the token see the repository?",
            413: "The file is larger than the forge takes.",
        }
        return ForgeError(
            f"{self.name} answers {answer.status_code} to {answer.request.method} "
            f"{answer.request.url.path}.",
            hint=hints.get(answer.status_code) or "Run it again: what is done is not repeated.",
            detail=self._words(answer),
        )

    def _unreachable(self, error: httpx.HTTPError) -> ForgeError:
        return ForgeError(
            f"{self.name} cannot be reached: {self._clean(str(error) or type(error).__name__)}.",
            hint="Run it again when the network is back: what is done is not repeated.",
        )

    def _limited(self, wait: float) -> ForgeError:
        return ForgeError(
            f"{self.name} limits requests for another {wait:.0f} s.",
            hint="Run it again after that: what is done is not repeated.",
        )

    def _words(self, answer: httpx.Response) -> str | None:
        """What the forge says, in a few lines, without the token."""
        try:
            said = answer.json()
        except ValueError:
            text = answer.text if answer.headers.get("content-type", "").startswith("text/") else ""
            return self._clean(text[:500]) or None
        if not isinstance(said, dict):
            return None
        errors = said.get("errors")
        parts = [said.get("message"), *(errors if isinstance(errors, list) else ())]
        words = "\n".join(p if isinstance(p, str) else json.dumps(p) for p in parts if p)
        return self._clean(words[:2000]) or None

    def _clean(self, text: str) -> str:
        text = text.replace(self._token, "***") if self._token else text
        return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()

    def _json(self, answer: httpx.Response) -> Any:
        try:
            if len(answer.content) > LARGEST_ANSWER:
                raise ValueError("too large")
            return answer.json()
        except ValueError as error:
            raise ForgeError(
                f"{self.name} answers something else than JSON to {answer.request.url.path}.",
                hint="Is it the address of a forge? `forge: {kind, url}` in the file says it.",
            ) from error


def _limit(answer: httpx.Response) -> float | None:
    """Seconds to wait where the forge refused because of a limit, else None. Source: GitHub's
    documentation, "Rate limits for the REST API"."""
    after = answer.headers.get("retry-after", "")
    spent = answer.headers.get("x-ratelimit-remaining") == "0"
    if answer.status_code != 429 and not (answer.status_code == 403 and (after or spent)):
        return None
    if after.isdigit():
        return float(after)
    reset = answer.headers.get("x-ratelimit-reset", "")
    if spent and reset.isdigit():
        return max(float(reset) - time.time(), 1.0)
    return 1.0
