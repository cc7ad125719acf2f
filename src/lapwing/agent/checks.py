"""Health checks of starting replicas, and smoke tests of candidates.

The agent checks a replica's health often while it starts, so that a fast start is noticed fast.
Without a health path, it has to answer HTTP requests on several connections at once, each of its
worker processes too (`workers`): servers such as gunicorn open their port before they import the
application. Once it is active, Envoy checks it (it decides which replicas receive traffic), and the
agent reads Envoy's status.

HTTP smoke tests go through Envoy to the preview host, with TLS and the real routes, so they see
what clients will see after the switch. A static service without smoke tests is tested by loading
its page and what that references. Commands run in the release's own folder and environment,
with LAPWING_PREVIEW_URL, and pass when they exit with status 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urldefrag, urljoin

from lapwing.agent import probe, processes
from lapwing.agent.logs import tail
from lapwing.agent.processes import Launch
from lapwing.agent.proxy import model as proxy
from lapwing.agent.runtime import Runtime
from lapwing.errors import SmokeError
from lapwing.plan.model import Health, Service, Smoke

if TYPE_CHECKING:
    import httpx

FIRST_INTERVAL_S = 0.02
"""Time between the first two checks of a starting replica; grows to LAST_INTERVAL_S."""
LAST_INTERVAL_S = 0.25
REPORT_AFTER_S = 2.0
"""Time after which a deployment shows why a starting replica is not healthy yet."""
MAX_REFERENCES = 20
"""How many of a page's scripts and styles are requested."""
CONNECTIONS = 4
"""Connections on which a replica without a health path has to answer, so that several of a server's
worker processes are tried."""

ROUTE_REQUESTS = 3
"""Requests in a row that a replica has to answer with 5xx before its route counts as failing."""


async def check_health(port: int, spec: Service) -> str | None:
    """Check a replica once; returns None if it is healthy, otherwise the reason.

    Without a health path, requests for the service's route are sent.
    """
    path, limit = spec.health.path, status_limit(spec)
    if path is not None:
        return await _request(port, path, spec.health, limit=limit)
    route, health = route_of(spec), spec.health
    requests = [_request(port, route, health, limit=limit) for _ in range(CONNECTIONS)]
    return next((reason for reason in await asyncio.gather(*requests) if reason), None)


def status_limit(spec: Service) -> int:
    """Return the lowest status of a response that is a failure.

    With a health path, or files, a status below 400 is healthy; otherwise also a 404, which is
    normal for the route of an API.
    """
    return 400 if spec.health.path is not None or spec.kind == "static" else 500


async def check_route(port: int, spec: Service) -> str | None:
    """Return the error of a replica that responds to its route with 5xx, several times in a row.

    Any other result is accepted: 404 is normal for an API, and a long poll does not respond.
    """
    route = route_of(spec)
    for _ in range(ROUTE_REQUESTS):
        status = await probe.get_status(port, route, spec.health)
        if not isinstance(status, int) or status < 500:
            return None
    return f"GET {route} responded with status {status}"


def route_of(spec: Service) -> str:
    """Return the path that is requested where there is no health path."""
    return spec.route or "/"


async def _request(port: int, path: str, health: Health, limit: int) -> str | None:
    """Send a request on a new connection; returns why the response is not accepted."""
    found = await probe.get_status(port, path, health)
    if isinstance(found, int):
        return f"GET {path} responded with status {found}" if found >= limit else None
    return found


async def wait_until_healthy(
    check: Callable[[], Awaitable[str | None]], timeout: float, waiting: Callable[[str], None]
) -> str | None:
    """Check a replica until it is healthy; returns None, or the reason after `timeout` seconds.

    `waiting` is called with each reason after REPORT_AFTER_S seconds.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    until = began + timeout
    interval = FIRST_INTERVAL_S
    while True:
        reason = await check()
        if reason is None:
            return None
        if loop.time() + interval > until:
            return reason
        if loop.time() - began > REPORT_AFTER_S:
            waiting(reason)
        await asyncio.sleep(interval)
        interval = min(interval * 1.2, LAST_INTERVAL_S)


@dataclass(frozen=True, slots=True)
class Preview:
    """How to reach candidates.

    Envoy's port on `address`, the preview host's name, and the certificate of the authority that
    signs for it.
    """

    address: str
    port: int
    host: str
    authority: Path

    @property
    def url(self) -> str:
        """Return the URL of the preview host."""
        return f"https://{proxy.authority(self.host, self.port)}"


async def run_smoke_request(test: Smoke, preview: Preview) -> None:
    """Send the request of a smoke test. Raises SmokeError with the unexpected response."""
    async with await _client(preview) as client:
        await _get(client, test, preview)


async def run_page_test(route: str, preview: Preview) -> None:
    """Load the page of a static service, and the scripts and styles that it references.

    Raises SmokeError if one does not respond with 200, or is HTML although it is no page: a build
    for another path gets the fallback page of the service there.
    """
    page = route if route.endswith("/") else f"{route}/"
    async with await _client(preview) as client:
        response = await _get(client, Smoke(get=page), preview)
        found = _References()
        with contextlib.suppress(AssertionError):  # For a damaged `<![`: what is before it counts.
            found.feed(response.text)
        for path in sorted(found.paths(f"{preview.url}{page}", preview.url))[:MAX_REFERENCES]:
            reference = await _get(client, Smoke(get=path), preview)
            if reference.headers.get("content-type", "").startswith("text/html"):
                raise SmokeError(f"{page} references {path}, which is HTML, not a script or style.")


class _References(HTMLParser):
    """Collects the scripts and style sheets of a page."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[str] = []
        self._base = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "base":
            self._base = given.get("href", "")
        elif tag == "script" and given.get("src"):
            self._found.append(given["src"])
        elif tag == "link" and given.get("rel", "").lower() in ("stylesheet", "modulepreload"):
            self._found.append(given.get("href", ""))

    def paths(self, page: str, origin: str) -> set[str]:
        """Return the paths on this origin; references that are no URL are left out."""
        base = _joined(page, self._base) or page
        urls = [_joined(base, reference) for reference in self._found]
        return {u.removeprefix(origin) for u in urls if u.startswith(f"{origin}/")}


def _joined(base: str, reference: str) -> str:
    """Return the URL of a reference without its fragment; empty if it is no URL."""
    try:
        return urldefrag(urljoin(base, reference)).url
    except ValueError:
        return ""


async def _client(preview: Preview) -> httpx.AsyncClient:
    import httpx

    context = await asyncio.to_thread(_trusting, preview.authority)
    return httpx.AsyncClient(verify=context, trust_env=False)


async def _get(client: httpx.AsyncClient, test: Smoke, preview: Preview) -> httpx.Response:
    import httpx

    request = f"Smoke test GET {test.get}"
    try:
        response = await client.get(
            f"https://{preview.address}:{preview.port}{test.get}",
            headers={"host": f"{preview.host}:{preview.port}", "user-agent": "lapwing-smoke"},
            extensions={"sni_hostname": preview.host},
            timeout=test.timeout,
        )
    except httpx.TimeoutException as error:
        raise SmokeError(f"{request} did not respond within {test.timeout:g} s.") from error
    except httpx.HTTPError as error:
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise SmokeError(f"{request} got no response from Envoy ({reason}).") from error
    except httpx.InvalidURL as error:
        raise SmokeError(f"Smoke test GET {test.get!r} failed: {error}.") from error
    responded = f"{request} responded with status {response.status_code}"
    excerpt = "\n".join(response.text[:600].splitlines()[:8])
    if response.status_code != test.expect:
        raise SmokeError(f"{responded}, expected {test.expect}.", detail=excerpt)
    if test.contains is not None and test.contains not in response.text:
        raise SmokeError(
            f"{responded}, but the body does not contain {test.contains!r}.", detail=excerpt
        )
    return response


def _trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))


async def run_smoke_command(test: Smoke, runtime: Runtime, launch: Launch, log: Path) -> None:
    """Run the command of a smoke test. Raises SmokeError with the end of its output."""
    ended = await runtime.run(launch, log, test.timeout)
    if ended != processes.SUCCESS:
        ended = ended or f"did not exit within {test.timeout:g} s"
        raise SmokeError(f"Smoke test `{test.run}` {ended}.", detail=tail(log))
