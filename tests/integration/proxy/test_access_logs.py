"""The access logs of Envoy: bounded by their writers, with every line, also on a full disk."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from lapwing.agent import logs, processes, termination
from lapwing.agent.processes import Identity
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.settings import Settings
from tests.disk import mounted
from tests.installation import envoys, free_port
from tests.needs import require

LIMIT = 65_536


@pytest.fixture
async def proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Envoy]:
    """An Envoy without routes, whose logs are small."""
    monkeypatch.setattr(logs, "MAX_LOG_BYTES", LIMIT)
    envoy = Envoy(Settings(home=tmp_path / "home", port=free_port(), bind="127.0.0.1"))
    await envoy.start()
    yield envoy
    await envoy.stop()


async def request(proxy: Envoy, paths: list[str]) -> None:
    """Request paths on one connection: one process of Envoy answers all of them, with 404."""
    context = ssl.create_default_context(cafile=str(proxy.settings.certificates / "ca.pem"))
    url = f"https://127.0.0.1:{proxy.settings.port}"
    async with httpx.AsyncClient(verify=context, base_url=url, trust_env=False) as client:
        for path in paths:
            assert (await client.get(path)).status_code == 404


def logged(folder: Path) -> list[str]:
    """The paths of all logged requests; a line may be in two parts of a log."""
    files = sorted(folder.glob("access-?.log"))
    parts = [(f.with_name(f"{f.name}.1"), f) for f in files]
    texts = ["".join(p.read_text() for p in both if p.exists()) for both in parts]
    return [json.loads(line)["path"] for text in texts for line in text.splitlines()]


async def until_ended(proxy: Envoy) -> None:
    """Stop Envoy, which then writes its last lines, and wait for its log writers."""
    await proxy.stop()
    for writer in [*processes.log_writers.values()]:
        await asyncio.to_thread(writer.wait, 60)


def count(folder: Path, path: str) -> int:
    """The number of logged requests of a path; lines may be incomplete."""
    return sum(file.read_text().count(f'"{path}"') for file in folder.glob("access-*"))


async def test_rotation_without_an_agent_loses_no_line(proxy: Envoy) -> None:
    await proxy.leave()
    sent = [f"/{number:08d}" for number in range(300)]
    await request(proxy, sent)
    await proxy.start()
    await until_ended(proxy)
    assert sorted(logged(proxy.settings.logs)) == sent
    sizes = [f.stat().st_size for f in proxy.settings.logs.glob("access-*")]
    assert len(sizes) == 3, "one of the logs has been rotated"
    assert max(sizes) <= LIMIT


async def test_log_writer_that_ended_is_started_again(proxy: Envoy) -> None:
    for _ in envoys(proxy.settings.home):
        [pid] = [p for p, w in processes.log_writers.items() if p == w.pid][:1]
        await termination.kill(Identity(pid, processes.started(pid) or 0.0))
        processes.log_writers.pop(pid).wait()
    await request(proxy, ["/kept"])
    await until_ended(proxy)
    assert logged(proxy.settings.logs) == ["/kept"]


async def test_full_disk_costs_lines_only(proxy: Envoy, tmp_path: Path) -> None:
    require("tmpfs")
    await proxy.stop()
    folder = proxy.settings.logs
    folder.rename(tmp_path / "before")
    with mounted(folder, "1m") as disk:
        await proxy.start()
        disk.fill()
        await request(proxy, ["/lost"] * 600)
        assert count(folder, "/lost") < 600
        disk.free()
        async with asyncio.timeout(60):
            while not count(folder, "/kept"):
                await request(proxy, ["/kept"] * 300)
        await until_ended(proxy)
        assert all(f.stat().st_size <= LIMIT for f in folder.glob("access-*"))
