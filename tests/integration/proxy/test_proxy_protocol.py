"""The client's address from headers of the PROXY protocol, with the real Envoy and raw sockets."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import struct
from pathlib import Path

import pytest

from lapwing.agent.proxy.supervisor import Envoy
from tests.installation import free_port
from tests.integration.proxy.test_headers import envoy

CLIENT = "192.0.2.7"
V1 = f"PROXY TCP4 {CLIENT} 198.51.100.1 40000 443\r\n".encode()
V2 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
    + struct.pack("!H", 12)
    + socket.inet_aton(CLIENT)
    + socket.inet_aton("198.51.100.1")
    + struct.pack("!HH", 40000, 443)
)
V2_IPV6 = (
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21"
    + struct.pack("!H", 36)
    + socket.inet_pton(socket.AF_INET6, "2001:db8::9")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + struct.pack("!HH", 40000, 443)
)
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\0\0"
"""The command of version 2 for health checks of the load balancer itself."""
UNKNOWN = b"PROXY UNKNOWN\r\n"
BALANCER, OTHER = "127.0.0.2", "127.0.0.3"
"""Peers of Envoy on this machine."""
FORGED = "X-Forwarded-For: 192.0.2.7"


async def get(
    proxy: Envoy,
    header: bytes,
    *lines: str,
    path: str = "/",
    host: str = "a.localhost",
    peer: str = BALANCER,
    to: str = "127.0.0.1",
    port: int | None = None,
    tls: bool = True,
) -> tuple[int, str]:
    """Send a header and then a request, over TLS; status 0 if Envoy closes the connection."""
    context = ssl.create_default_context(cafile=str(proxy.settings.certificates / "ca.pem"))
    context.check_hostname = False
    try:
        reader, writer = await asyncio.open_connection(
            to, port or proxy.settings.port, local_addr=(peer, 0)
        )
        writer.write(header)
        await writer.drain()
        if tls:
            await writer.start_tls(context, server_hostname="a.localhost")
        head = [f"GET {path} HTTP/1.1", f"Host: {host}", *lines, "Connection: close", "", ""]
        writer.write("\r\n".join(head).encode())
        text = (await reader.read()).decode()
        writer.close()
    except (ConnectionError, ssl.SSLError):
        return 0, ""
    first, _, body = text.partition("\r\n\r\n")
    return (int(first.split()[1]), body) if first else (0, "")


async def test_trusted_proxy_states_the_address_of_the_client(tmp_path: Path) -> None:
    """In X-Forwarded-For, the lists of allowed clients and the access log, and in no other way."""
    options = {"trusted_proxies": (f"{BALANCER}/32",), "proxy_protocol": True}
    async with envoy(tmp_path, **options) as proxy:
        for header, address in (
            (V1, CLIENT),
            (V2, CLIENT),
            (V2_IPV6, "2001:db8::9"),
            (LOCAL, BALANCER),
            (UNKNOWN, BALANCER),
            (b"", BALANCER),
        ):
            status, body = await get(proxy, header)
            got = json.loads(body)
            assert (status, got["x-forwarded-for"]) == (200, address), header
            port = 443 if address not in (BALANCER, "") else proxy.settings.port
            assert got["x-forwarded-port"] == str(port), header
            allowed = 403 if address == BALANCER else 200
            assert (await get(proxy, header, path="/in", host="some.localhost"))[0] == allowed
            previewed = (await get(proxy, header, host="local.localhost"))[0]
            assert previewed == (200 if address == BALANCER else 403), header
        # A client cannot add another address to that of the header.
        _, body = await get(proxy, V1, "X-Forwarded-For: 203.0.113.9")
        assert json.loads(body)["x-forwarded-for"] == CLIENT
        # A proxy that sends X-Forwarded-For itself, as without the setting.
        status, body = await get(proxy, b"", FORGED)
        assert json.loads(body)["x-forwarded-for"].split(",")[0] == CLIENT
        assert (await get(proxy, b"", FORGED, path="/in", host="some.localhost"))[0] == 200
        # A CDN that is listed, behind the load balancer.
        cdn = V1.replace(CLIENT.encode(), BALANCER.encode())
        assert (await get(proxy, cdn, FORGED, path="/in", host="some.localhost"))[0] == 200
        logs = list(proxy.settings.logs.glob("access-*.log"))
    lines = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    assert {line["client"] for line in lines} == {CLIENT, "2001:db8::9", BALANCER}


async def test_other_peers_cannot_state_an_address(tmp_path: Path) -> None:
    """This machine is served without a header; every other peer is refused."""
    options = {"trusted_proxies": (f"{BALANCER}/32",), "proxy_protocol": True}
    async with envoy(tmp_path, bind="0.0.0.0", **options) as proxy:
        for header in (V1, V2, V2_IPV6):
            assert await get(proxy, header, peer=OTHER) == (0, "")
        _, body = await get(proxy, b"", FORGED, peer=OTHER)
        assert json.loads(body)["x-forwarded-for"] == OTHER
        for header in (b"PROXY TCP4 192.0.2.7\r\n", V2[:12] + b"\x31" + V2[13:]):
            assert await get(proxy, header) == (0, ""), "an invalid header"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))
            except OSError:
                pytest.skip("This machine has no other address than that of loopback.")
            own = probe.getsockname()[0]
        for header in (b"", V1, V2):
            assert await get(proxy, header, peer=own, to=own) == (0, "")


async def test_plain_http_is_served_behind_a_load_balancer(tmp_path: Path) -> None:
    """Redirects on both ports; the second one also answers ACME challenges, to every peer."""
    options = {"trusted_proxies": (f"{BALANCER}/32",), "proxy_protocol": True}
    async with envoy(tmp_path, http_port=free_port(), **options) as proxy:
        for port in (proxy.settings.port, proxy.settings.http_port):
            for peer in (BALANCER, OTHER):
                for header in (b"", V1, V2):
                    found = await get(proxy, header, peer=peer, port=port, tls=False)
                    assert found[0] == 307, (port, peer, header)


async def test_bind_address_is_of_this_machine(tmp_path: Path) -> None:
    """Commands connect to the address that Envoy listens on; a trusted network may contain it."""
    for trusted in ("192.0.2.0/24", "127.0.0.0/8", "0.0.0.0/0"):
        options = {"trusted_proxies": (trusted,), "proxy_protocol": True, "bind": OTHER}
        async with envoy(tmp_path / trusted.replace("/", "-"), **options) as proxy:
            assert (await get(proxy, b"", peer=OTHER, to=OTHER))[0] == 200
            stated = (await get(proxy, V1, peer=OTHER, to=OTHER))[0]
            assert stated == (0 if trusted == "192.0.2.0/24" else 200), trusted
