"""Which response headers clients of the real Envoy get."""

from __future__ import annotations

import asyncio
from pathlib import Path

from lapwing.agent.proxy.model import Cluster, Route, RouteTable, VirtualHost
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.render.envoy import HeaderChange
from lapwing.settings import Settings
from tests.installation import free_port
from tests.integration.proxy.test_headers import exchange

ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n"
    b"x-set: old\r\nx-add: old\r\nx-default: old\r\nx-remove: old\r\n\r\n"
)
CHANGES = (
    HeaderChange("x-set", "set", "100%"),
    HeaderChange("x-add", "add", "one"),
    HeaderChange("x-add", "add", "two"),
    HeaderChange("x-default", "default", "new"),
    HeaderChange("x-missing", "default", "new"),
    HeaderChange("x-remove", "remove"),
)


async def test_headers_are_set_added_and_removed(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await writer.drain()
        writer.close()

    proxy = Envoy(Settings(home=tmp_path, port=free_port(), bind="127.0.0.1"))
    await proxy.start()
    try:
        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            cluster = Cluster("a/local/api/blue-1", (server.sockets[0].getsockname()[1],), "/")
            await proxy.publish_clusters([cluster])
            await proxy.wait_for_clusters([cluster.name], 10)
            host = VirtualHost("a", ("a.localhost",), (Route("/", cluster.name, headers=CHANGES),))
            strict = (HeaderChange("strict-transport-security", "default", "max-age=1"),)
            to = VirtualHost("b", ("b.localhost",), (), redirect="a.localhost", headers=strict)
            await proxy.publish_routes(RouteTable("1", (host, to)))
            await proxy.confirmed("1", 10)
            head, _ = await exchange(proxy, "GET / HTTP/1.1", "Host: a.localhost")
            redirect, _ = await exchange(proxy, "GET / HTTP/1.1", "Host: b.localhost")
    finally:
        await proxy.stop()
    lines = [line for line in head.split("\r\n") if line.startswith("x-")]
    assert sorted(lines) == [
        "x-add: old",
        "x-add: one",
        "x-add: two",
        "x-default: old",
        "x-missing: new",
        "x-set: 100%",
    ]
    assert "strict-transport-security: max-age=1" in redirect
