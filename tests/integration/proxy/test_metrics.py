"""LAPWING_METRICS_PORT: the metrics of the real Envoy, as Prometheus reads them."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path

import httpx
import pytest

from lapwing.agent.proxy.model import Cluster
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.errors import PortTakenError
from lapwing.settings import Settings
from tests.installation import free_port
from tests.integration.proxy.test_live import backend, client, route

__all__ = ["backend"]
SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{((?:\w+="[^"]*",?)*)\})? (\S+)')
"""A line of the text format: the name, the labels and the value."""


def two_ports() -> int:
    """The first of two free ports in a row."""
    while True:
        port = free_port()
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port + 1))
            return port


def samples(text: str) -> dict[tuple[str, str], float]:
    """The samples of a page, by name and cluster; every line has to be valid."""
    found = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            sample = SAMPLE.fullmatch(line)
            assert sample, line
            name, labels, value = sample.groups()
            cluster = re.search(r'envoy_cluster_name="([^"]*)"', labels or "")
            found[name, cluster[1] if cluster else ""] = float(value)
    return found


async def test_processes_serve_their_metrics_and_nothing_else(backend: int, tmp_path: Path) -> None:
    port = two_ports()
    proxy = Envoy(Settings(tmp_path, free_port(), "127.0.0.1", metrics_port=port))
    cluster = Cluster("shop/local/api/blue-1", (backend,), "/healthz")
    await proxy.start()
    try:
        await route(proxy, cluster, "1")
        for _ in range(20):  # New connections, which the kernel distributes.
            async with client(proxy) as http:
                assert (await http.get("/")).status_code == 200
        async with httpx.AsyncClient(trust_env=False) as http:
            pages = [await http.get(f"http://127.0.0.1:{port + n}/metrics") for n in (0, 1)]
            for path in ("/", "/metrics/", "/stats", "/stats/prometheus", "/config_dump", "/certs"):
                assert (await http.get(f"http://127.0.0.1:{port}{path}")).status_code == 404, path
            posted = await http.post(f"http://127.0.0.1:{port}/metrics")
            assert posted.status_code == 404
            with pytest.raises(httpx.ConnectError):
                await http.get(f"http://127.0.0.2:{port}/metrics")
        found = [samples(page.text) for page in pages]
        requests = [f["envoy_cluster_external_upstream_rq_completed", cluster.name] for f in found]
        assert sum(requests) == 20
        assert [f["envoy_cluster_membership_healthy", cluster.name] for f in found] == [1, 1]
        assert "envoy_http_downstream_rq_xx" in {name for name, _ in found[0]}
    finally:
        await proxy.stop()


async def test_port_in_use_is_named_with_its_variable(tmp_path: Path) -> None:
    port = two_ports()
    with socket.socket() as other:
        other.bind(("127.0.0.1", port + 1))
        other.listen()
        proxy = Envoy(Settings(tmp_path, free_port(), "127.0.0.1", metrics_port=port))
        with pytest.raises(PortTakenError, match=f"Port {port + 1} is already in use") as refused:
            await proxy.start()
    assert str(refused.value.hint).endswith("set another port with LAPWING_METRICS_PORT.")
