"""Termination of a pod on a real node: preStop, end of its endpoint, SIGTERM, last response."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from lapwing.load.client import Plan, running
from lapwing.render.kubernetes.pod import PRE_STOP_S
from tests.cluster import node_flows
from tests.cluster.control_plane import wait_until
from tests.cluster.node_shop import TRAFFIC, Shop
from tests.cluster.node_stack import accepts
from tests.conftest import FIGURES

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900), pytest.mark.xdist_group("node")]

SLOW_S = PRE_STOP_S + 4
"""A response of this duration ends after SIGTERM."""


def test_deleted_pod_gets_sigterm_after_its_endpoint_is_removed(
    shop: Shop, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """The service stops listening at SIGTERM, and completes the responses that it has begun."""
    shop.release("v0")
    shop.json("up", "-e", "node", "--yes")
    pod = node_flows.pod_of(shop.node, shop.namespace, "app.kubernetes.io/name=api")
    assert pod is not None
    name, address = pod["metadata"]["name"], pod["status"]["podIP"]
    responses: list[str] = []

    def read_slowly() -> None:
        url = f"http://{address}:8080/api/slow?seconds={SLOW_S}"
        responses.append(httpx.get(url, timeout=60).text)

    reader = threading.Thread(target=read_slowly)
    with running(Plan(shop.edge(), TRAFFIC), tmp_path) as client:
        client.wait_for_answers()
        reader.start()
        deleted = time.monotonic()
        shop.node.cluster.call("DELETE", f"/api/v1/namespaces/{shop.namespace}/pods/{name}")
        wait_until(lambda: not has_endpoint(shop, address), "the endpoint is removed")
        removed = time.monotonic()
        assert accepts(address, 8080)
        wait_until(lambda: not accepts(address, 8080), "the pod stops listening")
        stopped = time.monotonic()
        reader.join()
        wait_until(lambda: shop.get(f"pods/{name}") is None, "the pod has ended")
        ended = time.monotonic()
        ledger = client.stop()
    removal, term, end = (at - deleted for at in (removed, stopped, ended))
    figures = f"endpoint removed after {removal:.1f} s, SIGTERM after {term:.1f} s, end {end:.1f} s"
    record_property(FIGURES, figures)
    assert term >= PRE_STOP_S
    assert responses == ["v0" * 20]
    assert [(e.kind, e.failure, e.version) for e in ledger.failures] == []


def has_endpoint(shop: Shop, address: str) -> bool:
    """Whether the Service still sends new connections to a pod."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{shop.namespace}/endpointslices"
    query = "labelSelector=kubernetes.io/service-name%3Dshop-api"
    slices = shop.node.cluster.call("GET", f"{path}?{query}")["items"]
    endpoints = [e for found in slices for e in found.get("endpoints") or ()]
    return any(address in e["addresses"] and e["conditions"]["ready"] for e in endpoints)
