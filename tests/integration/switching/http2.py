"""A client that speaks HTTP/2: many requests at once on one connection, for as long as a block
runs."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from lapwing.load.connection import Target


@dataclass
class Heard:
    """What came of the requests."""

    versions: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@contextlib.contextmanager
def asking(target: Target, path: str, workers: int = 4) -> Iterator[Heard]:
    """Workers that share one connection and ask for `path` again and again. Tasks in an event loop
    of their own: threads that share one HTTP/2 connection of httpx get stuck."""
    heard = Heard()
    stop = threading.Event()
    thread = threading.Thread(
        target=lambda: asyncio.run(_ask_all(target, path, workers, heard, stop))
    )
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join()


async def _ask_all(
    target: Target, path: str, workers: int, heard: Heard, stop: threading.Event
) -> None:
    context = ssl.create_default_context(cafile=target.authority)
    limits = httpx.Limits(max_connections=1, max_keepalive_connections=1)
    async with httpx.AsyncClient(
        http2=True, verify=context, trust_env=False, limits=limits, timeout=30
    ) as client:
        await asyncio.gather(*(_ask(client, target, path, heard, stop) for _ in range(workers)))


async def _ask(
    client: httpx.AsyncClient, target: Target, path: str, heard: Heard, stop: threading.Event
) -> None:
    parts = urlsplit(target.url)
    while not stop.is_set():
        try:
            answer = await client.get(
                f"https://{target.address}:{parts.port}{path}",
                headers={"host": target.host},
                extensions={"sni_hostname": parts.hostname},
            )
        except httpx.HTTPError as error:
            heard.failures.append(f"{type(error).__name__}: {error}")
        else:
            if answer.status_code != 200 or answer.http_version != "HTTP/2":
                heard.failures.append(f"{answer.http_version} {answer.status_code}")
            heard.versions[answer.headers["x-release"]] += 1
        await asyncio.sleep(0.04)
