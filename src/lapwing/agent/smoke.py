"""Smoke tests: the last questions before a release gets live traffic.

HTTP expectations go through Envoy to the preview host, with TLS and the real routes, so they see
what clients will see after the switch. Commands run in the release's own folder and environment,
with LAPWING_PREVIEW_URL, and pass when they exit with status 0.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lapwing.agent import processes
from lapwing.agent.launch import Launch
from lapwing.agent.logs import tail
from lapwing.errors import SmokeError
from lapwing.plan.model import Smoke


@dataclass(frozen=True, slots=True)
class Preview:
    """Where candidates can be reached: Envoy's port on `address`, the preview host's name, and the
    authority that signs its certificate."""

    address: str
    port: int
    host: str
    authority: Path

    @property
    def url(self) -> str:
        return f"https://{self.host}:{self.port}"


async def expect(test: Smoke, preview: Preview) -> None:
    """Make the request of a smoke test. Raises SmokeError with what came instead."""
    import ssl

    import httpx

    context = ssl.create_default_context(cafile=str(preview.authority))
    async with httpx.AsyncClient(verify=context, trust_env=False) as client:
        try:
            answer = await client.get(
                f"https://{preview.address}:{preview.port}{test.get}",
                headers={"host": f"{preview.host}:{preview.port}", "user-agent": "lapwing-smoke"},
                extensions={"sni_hostname": preview.host},
                timeout=test.timeout,
            )
        except httpx.TimeoutException as error:
            raise SmokeError(
                f"Smoke test GET {test.get} did not answer within {test.timeout:g} s."
            ) from error
        except httpx.HTTPError as error:
            raise SmokeError(f"Smoke test GET {test.get} failed: {error}.") from error
    if answer.status_code != test.expect:
        raise SmokeError(
            f"Smoke test GET {test.get} answered {answer.status_code}, not {test.expect}.",
            detail=_start(answer.text),
        )
    if test.contains is not None and test.contains not in answer.text:
        raise SmokeError(
            f"Smoke test GET {test.get} answered {answer.status_code} without {test.contains!r}.",
            detail=_start(answer.text),
        )


async def run(test: Smoke, launch: Launch, extra: Mapping[str, str], log: Path) -> None:
    """Run the command of a smoke test. Raises SmokeError with the end of its output."""
    status = await command(launch, extra, log, test.timeout)
    if status is None:
        raise SmokeError(
            f"Smoke test `{test.run}` did not end within {test.timeout:g} s.", detail=tail(log)
        )
    if status != "exited with status 0":
        raise SmokeError(f"Smoke test `{test.run}` {status}.", detail=tail(log))


async def command(
    launch: Launch, extra: Mapping[str, str], log: Path, timeout: float
) -> str | None:
    """Run a command to its end; returns how it ended, None if it had to be killed for its time.

    However this call ends, the command's processes are gone afterwards.
    """
    identity = processes.spawn(
        launch.arguments, environ={**launch.environ, **extra}, folder=launch.folder, log=log
    )
    try:
        async with asyncio.timeout(timeout):
            return await processes.ended(identity)
    except TimeoutError:
        return None
    finally:
        processes.kill(identity)


def _start(text: str) -> str:
    return "\n".join(text[:600].splitlines()[:8])
