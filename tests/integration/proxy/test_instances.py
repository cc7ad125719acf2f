"""Envoy's processes are killed and replaced while clients send requests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import pytest

from lapwing.agent import processes, termination
from lapwing.agent.processes import Launch
from lapwing.agent.proxy import bootstrap, instances, respawn, sockets
from lapwing.agent.proxy.model import Cluster, Route, RouteTable, VirtualHost
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.settings import Settings
from tests.installation import envoys, free_port

PATIENCE = 60.0
MIGRATES = Path("/proc/sys/net/ipv4/tcp_migrate_req").read_text() == "1\n"
"""Whether the kernel moves connections that wait for a closing socket to another one."""


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request, after the seconds that its path names."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        await asyncio.sleep(float(path.strip("/") or 0))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
        await writer.drain()
    writer.close()


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Envoy]:
    """An Envoy that routes everything to a server."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        cluster = Cluster("shop/local/api/blue-1", (server.sockets[0].getsockname()[1],))
        envoy = Envoy(Settings(home=tmp_path, port=free_port(), bind="127.0.0.1"))
        await envoy.start()
        await envoy.publish_clusters([cluster])
        await envoy.wait_for_clusters([cluster.name], 10)
        hosts = (VirtualHost("shop/local", ("127.0.0.1",), (Route("/", cluster.name),)),)
        await envoy.publish_routes(RouteTable("1", hosts))
        await envoy.confirmed("1", 10)
        try:
            yield envoy
        finally:
            await envoy.stop()
            assert envoys(tmp_path) == []


def client(proxy: Envoy) -> httpx.AsyncClient:
    """Return a client that has no connection yet."""
    context = ssl.create_default_context(cafile=str(proxy.settings.certificates / "ca.pem"))
    url = f"https://127.0.0.1:{proxy.settings.port}"
    return httpx.AsyncClient(verify=context, base_url=url, trust_env=False, timeout=30)


@dataclass
class Requests:
    """What the requests of a client came to."""

    sent: int = 0
    failed: list[str] = field(default_factory=list)

    def failed_but_for_handover(self) -> list[str]:
        """Return failed requests, without the connections that the kernel may reset.

        These wait for a process of Envoy when it closes its socket: at most one of each process,
        because one connection is opened at a time.
        """
        reset = [f for f in self.failed if f.startswith("ConnectError(")]
        if MIGRATES or len(reset) > instances.PROCESSES:
            return self.failed
        return [f for f in self.failed if f not in reset]


@contextlib.asynccontextmanager
async def requests(proxy: Envoy) -> AsyncIterator[Requests]:
    """Send requests, each on a new connection, during the block."""
    found = Requests()

    async def send() -> None:
        while True:
            found.sent += 1
            try:
                async with client(proxy) as http:
                    if (status := (await http.get("/")).status_code) != 200:
                        found.failed.append(str(status))
            except httpx.HTTPError as error:
                found.failed.append(repr(error))

    task = asyncio.create_task(send())
    try:
        yield found
    finally:
        task.cancel()


async def until(holds: object) -> None:
    """Wait until a function returns something true."""
    async with asyncio.timeout(PATIENCE):
        while not holds():  # type: ignore[operator]
            await asyncio.sleep(0.02)


async def test_killed_process_costs_no_new_connection_and_is_restarted(proxy: Envoy) -> None:
    """Also while no agent is running."""
    home = proxy.settings.home
    await proxy.leave()
    for _ in range(3):
        before = envoys(home)
        os.kill(before[0], signal.SIGKILL)
        await termination.wait_gone(before[0], PATIENCE)
        async with requests(proxy) as found:
            await until(lambda: found.sent > 20)
            await until(lambda: len(envoys(home)) == instances.PROCESSES)
            async with asyncio.timeout(PATIENCE):
                while not await proxy.admin.ready():
                    await asyncio.sleep(0.02)
        assert found.failed == []
        assert envoys(home) != before
    await proxy.start()


async def test_processes_use_no_shared_memory_that_outlives_them(proxy: Envoy) -> None:
    """With hot restart, each killed process would leave a file in /dev/shm."""
    maps = [Path(f"/proc/{pid}/maps").read_text() for pid in envoys(proxy.settings.home)]
    assert len(maps) == instances.PROCESSES
    assert [line for text in maps for line in text.splitlines() if "/dev/shm/" in line] == []


async def test_slow_health_check_succeeds_within_its_timeout(proxy: Envoy) -> None:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        slow = Cluster("shop/local/slow/blue-1", (port,), health_path="/1.5", health_timeout=9)
        await proxy.publish_clusters([slow])
        await proxy.wait_for_clusters([slow.name], PATIENCE)
        assert (await proxy.admin.health())[slow.name] == {port: True}


async def test_exit_of_a_process_is_reported(proxy: Envoy) -> None:
    told: list[str] = []
    proxy._died = told.append
    [victim, _] = envoys(proxy.settings.home)
    await asyncio.sleep(0.2)
    os.kill(victim, signal.SIGKILL)
    await until(lambda: told)
    assert told == [f"Envoy (process {victim}) exited; its supervisor restarts it."]


async def test_killed_supervisor_is_replaced_without_failed_requests(proxy: Envoy) -> None:
    before, supervisor = envoys(proxy.settings.home), proxy.identity
    assert supervisor is not None
    async with requests(proxy) as found:
        os.kill(supervisor.pid, signal.SIGKILL)
        await until(lambda: not set(before) & set(envoys(proxy.settings.home)))
    assert found.failed_but_for_handover() == []
    assert proxy.identity not in (None, supervisor)


async def test_changed_configuration_is_used_by_the_next_agent(proxy: Envoy) -> None:
    """Of the listener, for example after an upgrade. No request fails, a long one neither."""
    before = envoys(proxy.settings.home)
    await proxy.leave()
    settings = replace(proxy.settings, underscore_headers="allow")
    following = Envoy(settings)
    async with requests(proxy) as found, client(proxy) as http:
        assert (await http.get("/", headers={"a_b": "c"})).status_code == 400
        long = asyncio.create_task(http.get("/8"))
        await asyncio.sleep(0.2)
        await following.start()
        await until(lambda: not set(before) & set(envoys(settings.home)))
        assert (await long).status_code == 200
    assert found.failed_but_for_handover() == []
    assert found.sent > 20
    async with client(following) as http:
        assert (await http.get("/", headers={"a_b": "c"})).status_code == 200
    await until(lambda: len(instances._folders(settings.envoy)) == 1)
    await following.leave()


async def test_unchanged_configuration_is_adopted(proxy: Envoy) -> None:
    before = envoys(proxy.settings.home)
    await proxy.leave()
    following = Envoy(proxy.settings)
    await following.start()
    assert envoys(proxy.settings.home) == before
    assert following.identity == proxy.identity
    await following.leave()


async def test_envoy_of_an_older_version_is_replaced(proxy: Envoy, tmp_path: Path) -> None:
    """One process without a supervisor, with its files in Envoy's folder."""
    settings = proxy.settings
    admin = sockets.socket_path(settings.envoy, "admin.sock")
    ingress = bootstrap.Ingress(["127.0.0.1"], settings.port)
    config = settings.envoy / "bootstrap.json"
    config.write_text(json.dumps(bootstrap.bootstrap(settings.envoy, admin, ingress)))
    await proxy.stop()
    command = (str(instances.program()), "--config-path", str(config), "--disable-hot-restart",
               "--drain-time-s", "5")  # fmt: skip
    environ = {processes.MARK: f"{settings.home}|{instances.OWNER}"}
    old = processes.spawn(Launch(command, environ, settings.envoy), settings.logs / "old.log")
    try:
        await until(lambda: sockets.listener_pid(admin) == old.pid)
        async with requests(proxy) as warming:
            await until(lambda: warming.sent > len(warming.failed) + 1)
        async with requests(proxy) as found:
            await proxy.start()
            await until(lambda: processes.started(old.pid) is None)
        assert found.failed_but_for_handover() == []
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(old.pid, signal.SIGKILL)


@pytest.mark.parametrize(("code", "ends"), [(1, True), (0, False)])
def test_supervisor_ends_if_the_first_start_fails(tmp_path: Path, code: int, ends: bool) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, time\n"
        "open(sys.argv[2], 'a').write(str(os.getpid()) + chr(10))\n"
        f"if sys.argv[2].endswith('bad'): sys.exit({code})\n"
        "time.sleep(600)\n"
    )
    bad, good = tmp_path / "bad", tmp_path / "good"
    with (tmp_path / "output").open("w") as file:
        output = file.fileno()
        command = (sys.executable, "-I", "-S", respawn.__file__, f"{good}:{output}",
                   f"{bad}:{output}", "--", sys.executable, str(program))  # fmt: skip
        supervisor = subprocess.Popen(command, start_new_session=True, pass_fds=[output])
    try:
        if ends:
            assert supervisor.wait(PATIENCE) == code
        else:
            while not bad.exists() or len(bad.read_text().split()) < 2:
                assert supervisor.poll() is None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(supervisor.pid, signal.SIGKILL)
        supervisor.wait()
