"""Whether a replica is healthy, asked of the replica itself.

The agent asks while a candidate starts, often, so that a fast start is seen fast. Once it is
active, Envoy asks (it decides who gets traffic), and the agent reads Envoy's answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from lapwing.plan.model import Health

if TYPE_CHECKING:
    import httpx

PAUSE = 0.02
"""Seconds between two questions to a replica that starts; grows to PAUSE_LATE."""
PAUSE_LATE = 0.25


async def probe(client: httpx.AsyncClient, port: int, health: Health) -> str | None:
    """Ask once. None if healthy, else why not, in words."""
    if health.path is None:
        return await _connects(port, health.timeout)
    import httpx

    try:
        answer = await client.get(
            f"http://127.0.0.1:{port}{health.path}",
            timeout=health.timeout,
            headers={"user-agent": "lapwing-health", "connection": "close"},
        )
    except httpx.TimeoutException:
        return f"GET {health.path} did not answer within {health.timeout:g} s"
    except httpx.ConnectError:
        return "nothing listens on its port yet"
    except httpx.HTTPError as error:
        return f"GET {health.path} failed: {type(error).__name__}"
    if answer.status_code >= 400:
        return f"GET {health.path} answered {answer.status_code}"
    return None


async def wait(client: httpx.AsyncClient, port: int, health: Health) -> str | None:
    """Ask until healthy. None when it is; the last reason when `start_timeout` is over."""
    loop = asyncio.get_running_loop()
    until = loop.time() + health.start_timeout
    pause = PAUSE
    while True:
        reason = await probe(client, port, health)
        if reason is None:
            return None
        if loop.time() + pause > until:
            return reason
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, PAUSE_LATE)


async def _connects(port: int, timeout: float) -> str | None:
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
    except (OSError, TimeoutError):
        return "nothing listens on its port yet"
    writer.close()
    return None
