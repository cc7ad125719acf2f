"""Retries of the edge: of refused connections to a Service, and of a request that was sent."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import http.client
import re
import resource
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lapwing.render.kubernetes.edge import size_of
from tests.integration.edge.edges import Edge, running
from tests.unit.render.clusters import cluster_environment

WAITING = 1500
"""More than Envoy's usual limits of 1,024."""
REQUEST = b"POST /api/orders HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\norder"
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture
def many_files() -> Iterator[None]:
    """Raise the limit of open files, which is 1,024 on many machines."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_files")
def test_requests_wait_until_a_service_has_a_ready_pod_again(tmp_path: Path) -> None:
    """A POST is sent once: it is only retried while its connection is refused."""
    made = cluster_environment("company-inc", "production")
    size = dataclasses.replace(size_of(made), max_connections=2 * WAITING)
    with socket.socket() as service:
        service.bind(("127.0.0.1", 0))
        with running(made, tmp_path, {"api": service.getsockname()[1]}, size) as edge:
            statuses, received = asyncio.run(_send(edge, service))
    assert statuses == {b"200": WAITING}
    assert received == WAITING


@pytest.mark.parametrize(("method", "sent"), [("GET", 6), ("POST", 1)])
def test_request_that_crashes_its_service_is_sent_a_few_times_at_most(
    tmp_path: Path, method: str, sent: int
) -> None:
    """The long retries are for requests of which the service has received nothing."""
    made = cluster_environment("company-inc", "production")
    with socket.create_server(("127.0.0.1", 0)) as service:
        received: list[bytes] = []
        threading.Thread(target=_crash, args=(service, received), daemon=True).start()
        with running(made, tmp_path, {"api": service.getsockname()[1]}) as edge:
            client = http.client.HTTPConnection("127.0.0.1", edge.port, timeout=60)
            client.request(method, "/api/orders")
            assert client.getresponse().status == 503
            client.close()
    assert [request.split()[0].decode() for request in received] == [method] * sent


def _crash(service: socket.socket, received: list[bytes]) -> None:
    """Read a request from each connection, and close it without a response."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = service.accept()
            with connection:
                received.append(connection.recv(65536))


async def _send(edge: Edge, service: socket.socket) -> tuple[Counter[bytes], int]:
    """Send all requests, listen once they were refused, and return statuses and what arrived."""
    received = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        while (await reader.read(65536)).endswith(b"order"):
            received += 1
            writer.write(RESPONSE)
        writer.close()

    clients = [await asyncio.open_connection("127.0.0.1", edge.port) for _ in range(WAITING)]
    for _, writer in clients:
        writer.write(REQUEST)
    while await asyncio.to_thread(_retries, edge) < WAITING:
        await asyncio.sleep(0.01)
    async with await asyncio.start_server(answer, sock=service, backlog=WAITING):
        heads = await asyncio.gather(*(reader.readuntil(b"\r\n\r\n") for reader, _ in clients))
        for _, writer in clients:
            writer.close()
    return Counter(head.split()[1] for head in heads), received


def _retries(edge: Edge) -> int:
    """The number of retries, from Envoy's counters."""
    _, _, counters = edge.ask("/stats/prometheus", port=edge.stats)
    name = rb'envoy_cluster_upstream_rq_retry{envoy_cluster_name="api"}'
    found = re.search(name + rb" (\d+)", counters)
    return int(found[1]) if found else 0
