"""What a service behind the real Envoy receives of the headers that a client sends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from lapwing.agent import checks
from lapwing.agent.proxy import bootstrap
from lapwing.agent.proxy.model import Cluster, Route, RouteTable, VirtualHost
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.plan.htpasswd import htpasswd
from lapwing.plan.model import Health, Service
from lapwing.settings import Settings
from tests.installation import free_port

CLIENT = (
    "X-Forwarded-For: 203.0.113.9",
    "X-Forwarded-Host: evil.example",
    "X-Forwarded-Port: 1",
    "X-Forwarded-Proto: http",
    "X-Forwarded-Ssl: off",
    "X-Real-IP: 203.0.113.9",
    "Forwarded: for=203.0.113.9;proto=http",
)


async def _reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Respond with the received path and headers as JSON."""
    try:
        request = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    except asyncio.IncompleteReadError:
        request = ["GET / HTTP/1.1"]
    headers = dict(line.lower().split(": ", 1) for line in request[1:] if line)
    body = json.dumps({"path": request[0].split()[1], **headers})
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    writer.write((head + body).encode())
    await writer.drain()
    writer.close()


@asynccontextmanager
async def envoy(home: Path, **options: object) -> AsyncIterator[Envoy]:
    """Run Envoy with one route to a server that shows what it receives."""
    settings = Settings(**{"home": home, "port": free_port(), "bind": "127.0.0.1", **options})  # type: ignore[arg-type]
    proxy = Envoy(settings)
    await proxy.start()
    try:
        async with await asyncio.start_server(_reply, "127.0.0.1", 0) as server:
            cluster = Cluster("a/local/api/blue-1", (server.sockets[0].getsockname()[1],), "/")
            await proxy.publish_clusters([cluster])
            await proxy.wait_for_clusters([cluster.name], 10)
            routes = (Route("/", cluster.name),)
            host = VirtualHost("a", ("a.localhost", "[::1]"), routes)
            local = VirtualHost("b", ("local.localhost",), routes, ("127.0.0.0/8",))
            preview = VirtualHost(
                "d", ("preview.a.localhost",), routes, authority=f"a.localhost:{settings.port}"
            )
            idle = VirtualHost("e", ("preview.b.localhost",), (), ("127.0.0.0/8",), is_preview=True)
            other = VirtualHost(
                "c", ("other.localhost", "preview.c.localhost"), routes, ("192.0.2.0/24",)
            )
            limited = Route("/in", cluster.name, clients=("192.0.2.0/24", "2001:db8::/32"))
            buffered = Route("/in/buffered", cluster.name, max_body=9, clients=limited.clients)
            some = VirtualHost("f", ("some.localhost",), (buffered, limited, *routes))
            login = Route("/login", cluster.name, users=htpasswd("ada:s3cret:ü\n"), max_body=9)
            both = dataclasses.replace(login, prefix="/both", clients=limited.clients)
            users = VirtualHost("g", ("users.localhost",), (both, login, *routes))
            hosts = (host, local, other, preview, idle, some, users)
            await proxy.publish_routes(RouteTable("1", hosts))
            await proxy.confirmed("1", 10)
            yield proxy
    finally:
        await proxy.stop()


async def request(proxy: Envoy, *lines: str) -> tuple[int, str]:
    """Send a request as it is written; return the status and the body."""
    head, body = await exchange(proxy, *lines)
    return int(head.split()[1]), body


async def exchange(proxy: Envoy, *lines: str) -> tuple[str, str]:
    """Send a request as it is written; return the head and the body of the response."""
    context = ssl.create_default_context(cafile=str(proxy.settings.certificates / "ca.pem"))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", proxy.settings.port, ssl=context, server_hostname="127.0.0.1"
    )
    writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return head, body


async def test_client_cannot_set_forwarding_headers(tmp_path: Path) -> None:
    async with envoy(tmp_path) as proxy:
        port = proxy.settings.port
        status, body = await request(proxy, "GET / HTTP/1.1", f"Host: a.localhost:{port}", *CLIENT)
        assert status == 200
        got = json.loads(body)
    assert got["host"] == got["x-forwarded-host"] == f"a.localhost:{port}"
    assert (got["x-forwarded-port"], got["x-forwarded-proto"]) == (str(port), "https")
    assert "203.0.113.9" not in body
    assert "," not in got["x-forwarded-for"]
    assert "x-forwarded-ssl" not in got


async def test_trusted_proxy_sets_forwarding_headers(tmp_path: Path) -> None:
    async with envoy(tmp_path, trusted_proxies=("127.0.0.0/8",)) as proxy:
        _, body = await request(proxy, "GET / HTTP/1.1", "Host: a.localhost", *CLIENT)
        got = json.loads(body)
        _, body = await request(proxy, "GET / HTTP/1.1", "Host: a.localhost")
        absent = json.loads(body)
    assert got["x-forwarded-for"].startswith("203.0.113.9,")
    assert (got["x-forwarded-host"], got["x-forwarded-proto"]) == ("evil.example", "http")
    assert got["x-forwarded-port"] == "1"
    assert (absent["x-forwarded-host"], absent["x-forwarded-proto"]) == ("a.localhost", "https")


@pytest.mark.parametrize("host", ["a.localhost", "a.localhost:1", "[::1]", "[::1]:8585"])
async def test_domains_match_with_any_port(host: str, tmp_path: Path) -> None:
    async with envoy(tmp_path) as proxy:
        status, body = await request(proxy, "GET / HTTP/1.1", f"Host: {host}")
        assert (status, json.loads(body)["host"]) == (200, host)


async def test_http_1_0_needs_a_host(tmp_path: Path) -> None:
    async with envoy(tmp_path) as proxy:
        status, body = await request(proxy, "GET /a HTTP/1.0", "Host: a.localhost")
        assert (status, json.loads(body)["path"]) == (200, "/a")
        assert (await request(proxy, "GET /a HTTP/1.0"))[0] == 400


async def test_slashes_in_paths_are_kept(tmp_path: Path) -> None:
    async with envoy(tmp_path) as proxy:
        target = "/fetch/https://a.example//b"
        _, body = await request(proxy, f"GET {target} HTTP/1.1", "Host: a.localhost")
        assert json.loads(body)["path"] == target


async def test_preview_has_the_host_of_the_environment(tmp_path: Path) -> None:
    """Applications accept their own domain only, and compare it with the Origin of a form."""
    async with envoy(tmp_path) as proxy:
        own, shown = (f"{h}:{proxy.settings.port}" for h in ("a.localhost", "preview.a.localhost"))
        head = ("POST / HTTP/1.1", f"Host: {shown}", "Content-Length: 0")
        _, body = await request(proxy, *head, f"Origin: https://{shown}")
        got = json.loads(body)
        _, body = await request(proxy, *head, "Origin: https://evil.example")
        foreign = json.loads(body)
    assert got["host"] == got["x-forwarded-host"] == foreign["host"] == own
    assert (got["origin"], foreign["origin"]) == (f"https://{own}", "https://evil.example")


async def test_preview_without_a_deployment_is_not_found(tmp_path: Path) -> None:
    async with envoy(tmp_path) as proxy:
        status, body = await request(proxy, "GET / HTTP/1.1", "Host: preview.b.localhost")
    assert (status, "no deployment is in progress" in body) == (404, True)


@pytest.mark.parametrize("action", ["reject", "drop", "allow"])
async def test_header_names_with_underscores(action: str, tmp_path: Path) -> None:
    async with envoy(tmp_path, underscore_headers=action) as proxy:
        status, body = await request(
            proxy, "GET / HTTP/1.1", "Host: a.localhost", "user_id: 7", "X_Forwarded_For: 1.2.3.4"
        )
    if action == "reject":
        assert status == 400
        assert "may not contain an underscore" in body
        return
    assert (status, json.loads(body).get("user_id")) == (200, "7" if action == "allow" else None)


async def test_virtual_host_accepts_its_clients_only(tmp_path: Path) -> None:
    async with envoy(tmp_path) as proxy:
        get = "GET / HTTP/1.1"
        assert (await request(proxy, get, "Host: local.localhost"))[0] == 200
        assert await request(proxy, get, "Host: other.localhost") == (403, bootstrap.FORBIDDEN)
        refused = await request(proxy, get, "Host: preview.c.localhost")
        assert refused == (403, bootstrap.PREVIEW_FORBIDDEN)
        forged = "X-Forwarded-For: 192.0.2.7"
        assert (await request(proxy, get, "Host: other.localhost", forged))[0] == 403
    async with envoy(tmp_path, trusted_proxies=("127.0.0.0/8",)) as proxy:
        assert (await request(proxy, get, "Host: other.localhost", forged))[0] == 200
        assert (await request(proxy, get, "Host: local.localhost", forged))[0] == 403


@pytest.mark.parametrize("path", ["/in", "/in/", "/x/../in", "/in/buffered", "/in?a=/"])
async def test_route_accepts_its_clients_only(path: str, tmp_path: Path) -> None:
    """Also for websockets, and not only for the first address that a trusted proxy forwards."""
    upgrade = ("Upgrade: websocket", "Sec-WebSocket-Key: a", "Sec-WebSocket-Version: 13")
    get, host = f"GET {path} HTTP/1.1", "Host: some.localhost"
    async with envoy(tmp_path) as proxy:
        assert (await request(proxy, "GET /all HTTP/1.1", host))[0] == 200
        for extra in ((), ("X-Forwarded-For: 192.0.2.7",)):
            status, body = await request(proxy, get, host, *extra)
            assert (status, body) == (403, bootstrap.FORBIDDEN)
        head = (await exchange(proxy, get, host, *upgrade))[0]
        assert head.split()[1] == "403"
    async with envoy(tmp_path, trusted_proxies=("127.0.0.0/8",)) as proxy:
        for address, expected in (
            ("192.0.2.7", 200),
            ("2001:db8::9", 200),
            ("192.0.3.7", 403),
            ("192.0.2.7, 192.0.3.7", 403),
        ):
            found = await request(proxy, get, host, f"X-Forwarded-For: {address}")
            assert found[0] == expected, address


async def test_route_requires_the_password_of_a_user(tmp_path: Path) -> None:
    """Also for websockets. The service does not receive the password."""
    upgrade = ("Upgrade: websocket", "Sec-WebSocket-Key: a", "Sec-WebSocket-Version: 13")
    get, host = "GET /login HTTP/1.1", "Host: users.localhost"
    right = f"Authorization: Basic {base64.b64encode('ada:s3cret:ü'.encode()).decode()}"
    wrong = [
        f"Authorization: Basic {base64.b64encode(pair).decode()}"
        for pair in (b"ada:s3cret", b"ada:", b"Ada:s3cret", b":", b"ada")
    ]
    async with envoy(tmp_path) as proxy:
        for extra in ((), *((w,) for w in wrong), upgrade, (*upgrade, wrong[0])):
            head, _ = await exchange(proxy, get, host, *extra)
            assert head.split()[1] == "401", extra
            assert 'www-authenticate: Basic realm="https://users.localhost/login"' in head
        status, body = await request(proxy, get, host, right)
        assert (status, "authorization" in json.loads(body)) == (200, False)
        head, _ = await exchange(proxy, get, host, right, *upgrade)
        assert head.split()[1] == "200"  # The server does not upgrade.
        _, body = await request(proxy, "GET / HTTP/1.1", host, "Authorization: Bearer b")
        assert json.loads(body)["authorization"] == "bearer b"
        assert (await request(proxy, "GET /both HTTP/1.1", host, right))[0] == 403


async def _reply_to_shop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Refuse every Host but one, as Django with ALLOWED_HOSTS does."""
    with contextlib.suppress(asyncio.IncompleteReadError):
        head = await reader.readuntil(b"\r\n\r\n")
        status = "200 OK" if b"\r\nhost: shop.example\r\n" in head.lower() else "400 Bad Request"
        writer.write(
            f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode()
        )
        await writer.drain()
    writer.close()


async def test_files_are_healthy_only_if_envoy_would_accept_them() -> None:
    """A service without a health path may answer 4xx to its route, but not a folder of files."""
    program, files = (Service(kind=k, release="a", revision="a") for k in ("web", "static"))
    async with await asyncio.start_server(_reply_to_shop, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await checks.check_health(port, program) is None
        refused = await checks.check_health(port, files)
        assert refused == "GET / responded with status 400"


async def test_agent_and_envoy_send_the_same_host_in_health_checks(tmp_path: Path) -> None:
    healths = (Health(path="/", host="shop.example"), Health(path="/"))
    shop, other = (Service(kind="web", release="a", revision="a", health=h) for h in healths)
    async with (
        await asyncio.start_server(_reply_to_shop, "127.0.0.1", 0) as server,
        envoy(tmp_path) as proxy,
    ):
        port = server.sockets[0].getsockname()[1]
        assert await checks.check_health(port, shop) is None
        refused = await checks.check_health(port, other)
        assert refused == "GET / responded with status 400"
        names = {"a/local/shop": "shop.example", "a/local/other": "localhost"}
        await proxy.publish_clusters(
            [Cluster(n, (port,), "/", 0.1, 5.0, host) for n, host in names.items()]
        )
        await proxy.wait_for_clusters(list(names), 10)
        while (await proxy.admin.health())["a/local/other"][port]:
            await asyncio.sleep(0.05)
        assert (await proxy.admin.health())["a/local/shop"][port]
