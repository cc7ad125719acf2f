"""The real Envoy, told and asked through the code that the agent uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from lapwing.agent.analysis import judge
from lapwing.agent.proxy import bootstrap, instances
from lapwing.agent.proxy.model import Cluster, Counters, Route, RouteTable, VirtualHost
from lapwing.agent.proxy.not_found import UNKNOWN_HOST, UNKNOWN_PATH
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.errors import ProxyError
from lapwing.plan.model import Analysis
from lapwing.settings import Settings
from tests.installation import envoys, free_port
from tests.unit.agent.proxy.golden import CASES, given

SLOW = 0.06
"""Seconds that the backend takes to answer /slow."""
CUT = {
    "/length": b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\nhi",
    "/chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhi",
    "/nothing": b"",
}
"""Responses that the backend does not complete."""
WHOLE = {
    "/until-close": b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhi",
    "/endless": b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + b"x" * 8_999_999,
    "/socket": b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhi",
}


@pytest.fixture
async def proxy(tmp_path: Path) -> AsyncIterator[Envoy]:
    """A running Envoy in a home of its own."""
    found = Envoy(Settings(home=tmp_path, port=free_port(), bind="127.0.0.1"))
    await found.start()
    try:
        yield found
    finally:
        await found.stop()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One reply, by the path that is asked for, then the end of the connection."""
    try:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
    except asyncio.IncompleteReadError:
        writer.close()
        return
    if path == "/slow":
        await asyncio.sleep(SLOW)
    if path in CUT or path in WHOLE:
        with contextlib.suppress(ConnectionError):
            writer.write((CUT | WHOLE)[path])
            await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()
        return
    status = "500 No" if path == "/broken" else "200 OK"
    body = f"HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"
    writer.write(body.encode())
    await writer.drain()
    writer.close()


@pytest.fixture
async def backend() -> AsyncIterator[int]:
    """The port of a small server."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def table(cluster: str | None, version: str, *domains: str) -> RouteTable:
    """Everything on `/` goes to a cluster."""
    names = domains or ("localhost", "127.0.0.1")
    return RouteTable(version, (VirtualHost("shop/local", names, (Route("/", cluster),)),))


async def route(proxy: Envoy, cluster: Cluster, version: str) -> None:
    """Tell a cluster and send everything there, as the agent does."""
    await proxy.publish_clusters([cluster])
    await proxy.wait_for_clusters([cluster.name], 10)
    await proxy.publish_routes(table(cluster.name, version))
    await proxy.confirmed(version, 10)


def client(proxy: Envoy) -> httpx.AsyncClient:
    """A client that trusts the local authority."""
    context = ssl.create_default_context(cafile=str(proxy.settings.certificates / "ca.pem"))
    url = f"https://127.0.0.1:{proxy.settings.port}"
    return httpx.AsyncClient(verify=context, base_url=url, trust_env=False)


async def test_counters_match_client_requests(proxy: Envoy, backend: int) -> None:
    cluster = Cluster("shop/local/api/blue-1", (backend,), "/healthz")
    await route(proxy, cluster, "1")
    assert await proxy.admin.health() == {cluster.name: {backend: True}}
    before = (await proxy.admin.counters([cluster.name]))[cluster.name]
    async with client(proxy) as http:
        for path in ["/"] * 16 + ["/slow"] * 20 + ["/broken"] * 4:
            assert (await http.get(path)).status_code == (500 if path == "/broken" else 200)
    now = (await proxy.admin.counters([cluster.name, "nobody"]))[cluster.name]
    assert (now.requests - before.requests, now.errors - before.errors) == (40, 4)
    assert now.active_requests == 0
    assert now.latency[-1][1] - dict(before.latency).get(now.latency[-1][0], 0) == 40
    found = judge(Analysis(max_error_rate=0.05, min_requests=40), before, now)
    assert found.failed == "4 of 40 requests failed (10.0%, limit 5.0%)"
    assert found.p95 is not None
    assert found.p95 >= 0.05


async def test_truncated_responses_are_errors(proxy: Envoy, backend: int) -> None:
    """A client gets a status of 200 and less than the whole body."""
    cluster = Cluster("shop/local/api/blue-1", (backend,))
    await route(proxy, cluster, "1")
    before = (await proxy.admin.counters([cluster.name]))[cluster.name]
    failed = 0
    async with client(proxy) as http:
        for path in ["/"] * 10 + ["/length"] * 5 + ["/chunked"] * 4 + ["/nothing"] * 2:
            try:
                failed += (await http.get(path)).status_code >= 500
            except httpx.RemoteProtocolError:
                failed += 1
    assert failed == 11
    now = (await proxy.admin.counters([cluster.name]))[cluster.name]
    assert (now.requests - before.requests, now.errors - before.errors) == (21, 11)


async def test_retries_are_not_counted(proxy: Envoy, backend: int) -> None:
    """A request counts once, by what its client gets: here one replica accepts no connection."""
    cluster = Cluster("shop/local/api/blue-1", (backend, free_port()))
    await route(proxy, cluster, "1")
    failed = 0
    async with client(proxy) as http:
        for path in ["/"] * 10 + ["/length"] * 5 + ["/broken"] * 3:
            try:
                failed += (await http.get(path)).status_code >= 500
            except httpx.RemoteProtocolError:
                failed += 1
    now = (await proxy.admin.counters([cluster.name]))[cluster.name]
    assert (now.requests, now.errors, failed) == (18, 8, 8)


async def test_complete_responses_are_no_errors(proxy: Envoy, backend: int) -> None:
    """One that ends with its connection, one that the client does not read, and a websocket that
    the server closes."""
    cluster = Cluster("shop/local/api/blue-1", (backend,))
    await route(proxy, cluster, "1")
    context = ssl.create_default_context(cafile=str(proxy.settings.certificates / "ca.pem"))
    async with client(proxy) as http:
        assert (await http.get("/until-close")).text == "hi"
        async with http.stream("GET", "/endless") as response:
            assert response.status_code == 200
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.settings.port, ssl=context)
    upgrade = "connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    writer.write(f"GET /socket HTTP/1.1\r\nhost: localhost\r\n{upgrade}{key}\r\n".encode())
    assert (await reader.read()).startswith(b"HTTP/1.1 101")
    writer.close()
    await asyncio.sleep(0.2)
    now = (await proxy.admin.counters([cluster.name]))[cluster.name]
    assert (now.requests, now.errors) == (3, 0)


async def test_unknown_clusters_have_no_counters(proxy: Envoy) -> None:
    assert await proxy.admin.counters([]) == {}
    assert await proxy.admin.counters(["nobody"]) == {}


async def test_stopped_replica_becomes_unhealthy(proxy: Envoy) -> None:
    dead = free_port()
    cluster = Cluster("shop/local/api/blue-1", (dead,), "/healthz", 0.1, 0.1)
    await proxy.publish_clusters([cluster])
    await proxy.wait_for_clusters([cluster.name], 10)
    while (await proxy.admin.health())[cluster.name][dead]:
        await asyncio.sleep(0.05)


async def test_unknown_host_names_get_404(proxy: Envoy) -> None:
    await proxy.publish_routes(table(None, "1", "shop.localhost"))
    await proxy.confirmed("1", 10)
    async with client(proxy) as http:
        unknown = await http.get("/")
        assert (unknown.status_code, unknown.text) == (404, UNKNOWN_HOST)
        gone = await http.get("/", headers={"host": "shop.localhost"})
        assert (gone.status_code, gone.headers["retry-after"]) == (503, "5")


async def test_unknown_paths_get_404(proxy: Envoy) -> None:
    hosts = (VirtualHost("shop/local", ("shop.localhost",), (Route("/api", None),)),)
    await proxy.publish_routes(RouteTable("1", hosts))
    await proxy.confirmed("1", 10)
    async with client(proxy) as http:
        for path, expected in (("/", (404, UNKNOWN_PATH)), ("/apis", (404, UNKNOWN_PATH))):
            found = await http.get(path, headers={"host": "shop.localhost"})
            assert (found.status_code, found.text) == expected
        assert (await http.get("/api/x", headers={"host": "shop.localhost"})).status_code == 503


async def test_rejected_routes_change_nothing(proxy: Envoy, backend: int) -> None:
    await route(proxy, Cluster("shop/local/api/blue-1", (backend,)), "1")
    twice = (*table(None, "2").hosts, VirtualHost("other", ("localhost",), ()))
    await proxy.publish_routes(RouteTable("2", twice))
    with pytest.raises(ProxyError, match="rejected the routes") as caught:
        await proxy.confirmed("2", 10)
    assert "localhost" in str(caught.value.detail)
    async with client(proxy) as http:
        assert (await http.get("/")).status_code == 200


@pytest.mark.parametrize("case", sorted(p.name for p in CASES.iterdir()))
async def test_envoy_accepts_every_golden_case(proxy: Envoy, case: str) -> None:
    """As files, watched: all clusters known, the table confirmed, nothing rejected."""
    told = given(case)
    await proxy.publish_clusters(told.clusters)
    await proxy.wait_for_clusters([c.name for c in told.clusters], 30)
    await proxy.publish_routes(RouteTable("1", told.hosts))
    await proxy.confirmed("1", 10)
    assert await proxy.admin.rejected_clusters() == 0
    assert set(await proxy.admin.health()) == {c.name for c in told.clusters}


async def test_killed_envoy_is_restarted_with_its_routes(proxy: Envoy, backend: int) -> None:
    cluster = Cluster("shop/local/api/blue-1", (backend,), "/healthz")
    await route(proxy, cluster, "1")
    before = envoys(proxy.settings.home)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    while set(before) & set(envoys(proxy.settings.home)) or not await proxy.admin.ready():
        await asyncio.sleep(0.05)
    await proxy.wait_for_clusters([cluster.name], 10)
    await proxy.confirmed("1", 10)
    async with client(proxy) as http:
        assert (await http.get("/")).status_code == 200
    counted = (await proxy.admin.counters([cluster.name]))[cluster.name]
    assert isinstance(counted, Counters)
    assert counted.requests < 20


@pytest.mark.parametrize("trusted", [(), ("127.0.0.0/8",)])
async def test_plain_http_is_redirected_to_https(tmp_path: Path, trusted: tuple[str, ...]) -> None:
    """Also beside the chain of trusted proxies, which matches the same addresses."""
    port = free_port()
    settings = Settings(home=tmp_path, port=port, bind="127.0.0.1", trusted_proxies=trusted)
    proxy = Envoy(settings)
    await proxy.start()
    try:
        async with httpx.AsyncClient(trust_env=False) as http:
            for host in (f"localhost:{port}", "shop.localhost"):
                url = f"http://127.0.0.1:{port}/a//b?c=%20d"
                answer = await http.post(url, headers={"host": host}, content="x" * 99)
                assert answer.status_code == 307
                assert answer.headers["location"] == f"https://{host}/a//b?c=%20d"
        async with client(proxy) as http:
            assert (await http.get("/")).status_code == 404, "TLS is served as before"
    finally:
        await proxy.stop()


async def test_envoy_serves_with_more_clients_than_file_descriptors(
    tmp_path: Path, backend: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a descriptor Envoy cannot connect to a replica."""
    limit = (bootstrap.RESERVED_FILES + 200,) * 2
    monkeypatch.setattr(resource, "getrlimit", lambda _: limit)
    proxy = Envoy(Settings(home=tmp_path, port=free_port(), bind="127.0.0.1"))
    await proxy.start()
    writers = []
    try:
        pids = envoys(tmp_path)
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        await route(proxy, Cluster("shop/local/api/blue-1", (backend,), "/healthz"), "1")
        async with client(proxy) as http:
            assert (await http.get("/")).status_code == 200
            for _ in range(instances.PROCESSES * limit[0]):
                _, writer = await asyncio.open_connection("127.0.0.1", proxy.settings.port)
                writers.append(writer)
            assert (await http.get("/")).status_code == 200
        assert envoys(tmp_path) == pids
    finally:
        for writer in writers:
            writer.close()
        await proxy.stop()


class Held:
    """A server whose replies to /hold wait for `release`; it counts all requests."""

    def __init__(self) -> None:
        self.count = 0
        self.release = asyncio.Event()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
            self.count += path != "/healthz"
            if path == "/hold":
                await self.release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi")
            await writer.drain()
        writer.close()


async def test_draining_replicas_complete_requests_and_get_no_new_ones(proxy: Envoy) -> None:
    """Also when most replicas of the cluster drain, as after a large scale-down."""
    replicas = [Held() for _ in range(5)]
    servers = [await asyncio.start_server(r.answer, "127.0.0.1", 0) for r in replicas]
    ports = tuple(s.sockets[0].getsockname()[1] for s in servers)
    cluster = Cluster("shop/local/api/blue-1", ports, "/healthz", 0.5)
    await route(proxy, cluster, "1")

    async def active() -> dict[int, int]:
        return (await proxy.admin.active_requests())[cluster.name]

    held: list[asyncio.Task[httpx.Response]] = []
    async with client(proxy) as http, client(proxy) as waiting, asyncio.timeout(60):
        while set((await active()).values()) <= {0} or 0 in (await active()).values():
            held.append(asyncio.create_task(waiting.get("/hold", timeout=60)))
            await asyncio.sleep(0.02)
        fewer = Cluster(cluster.name, ports[:1], "/healthz", 0.5, draining=ports[1:])
        await proxy.publish_clusters([fewer])
        await asyncio.sleep(1)  # A draining replica stays longer than this.
        before = [r.count for r in replicas]
        for _ in range(100):
            assert (await http.get("/")).status_code == 200
        assert [r.count - b for r, b in zip(replicas, before, strict=True)] == [100, 0, 0, 0, 0]
        assert 0 not in (await active()).values(), "Requests in progress are counted."
        for replica in replicas:
            replica.release.set()
        assert {(await h).status_code for h in held} == {200}
        while sum((await active()).values()):
            await asyncio.sleep(0.02)
        await proxy.publish_clusters([Cluster(cluster.name, ports[:1], "/healthz", 0.5)])
        await asyncio.sleep(1)
        before = [r.count for r in replicas]
        for _ in range(100):
            assert (await http.get("/")).status_code == 200
        assert [r.count - b for r, b in zip(replicas, before, strict=True)] == [100, 0, 0, 0, 0]
        for server in servers[1:]:
            server.close()
        for _ in range(100):
            assert (await http.get("/")).status_code == 200
            await asyncio.sleep(0.02)
        while set(await active()) != {ports[0]}:
            await asyncio.sleep(0.1)


async def test_clients_over_ipv6_are_served_where_envoy_listens_on_it(
    tmp_path: Path, backend: int
) -> None:
    """As on a server without IPv4, by `LAPWING_BIND=::`."""
    found = Envoy(Settings(home=tmp_path, port=free_port(), bind="::"))
    await found.start()
    try:
        await route(found, Cluster("shop/local/api/blue-1", (backend,), "/healthz"), "1")
        async with client(found) as http:
            reply = await http.get(
                f"https://[::1]:{found.settings.port}/",
                headers={"host": "localhost"},
                extensions={"sni_hostname": "localhost"},
            )
        assert reply.text == "hi"
    finally:
        await found.stop()
