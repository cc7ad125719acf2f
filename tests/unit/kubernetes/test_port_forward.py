"""Connections that reach no pod at first: which requests are resent, and what is reported."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from lapwing.agent.proxy import certificates
from lapwing.errors import ClusterLoginError
from lapwing.kubernetes import port_forward, tunnel
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.kubeconfig import ClusterAccess
from lapwing.kubernetes.tunnel import TunnelDialer, TunnelError
from tests.installation import free_port
from tests.unit.kubernetes.cluster_objects import pod
from tests.unit.kubernetes.kubelet import ApiServer

SCOPE = Scope("shop", "staging", "shop")


@contextlib.asynccontextmanager
async def leading(
    folder: Path, told: list[str], **pods: str
) -> AsyncIterator[tuple[ApiServer, httpx.AsyncClient]]:
    """A forwarder to pods of the edge, and a client of it."""
    objects = [pod(name, name="edge", component="edge") for name in pods]
    async with ApiServer(pods, objects).running() as server:
        api = ApiClient(ClusterAccess("test", server.url), {})
        place = port_forward.ForwardTarget(SCOPE, "edge", 8080, tls=False)
        forwarder = port_forward.PortForwarder(
            TunnelDialer(api), port_forward.PodSelector(api, place), place, told.append
        )
        certificates.ensure(folder, ())
        paths, port = certificates.Paths(folder), free_port()
        [listening] = await port_forward.listen(forwarder, ["127.0.0.1"], port, paths.server)
        trust = ssl.create_default_context(cafile=paths.authority)
        async with httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{port}", verify=trust, trust_env=False,
            timeout=60,
        ) as client:  # fmt: skip
            yield server, client
        listening.close()
        api.close()


async def test_refused_connection_is_retried_on_another_pod(tmp_path: Path) -> None:
    told: list[str] = []
    body = os.urandom(700_000)
    async with leading(tmp_path, told, a="refuse", b="answer") as (server, client):
        for _ in range(6):
            answer = await client.post("/", content=body, headers={"connection": "close"})
            assert answer.content == b"b https " + body
    assert {"a", "b"} <= set(server.dialled)
    assert told == []


async def test_only_safe_requests_are_resent_after_a_pod_was_reached(
    tmp_path: Path,
) -> None:
    told: list[str] = []
    async with leading(tmp_path, told, a="hang up", b="answer") as (_, client):
        hurry = {"connection": "close"}
        for _ in range(6):
            assert (await client.get("/", headers=hurry)).text == "b https "
        posts = [await client.post("/", content=b"x", headers=hurry) for _ in range(6)]
    assert {p.status_code for p in posts} == {200, 503}
    assert {p.text for p in posts} == {"b https x", "a closed the connection before it answered.\n"}
    assert told == ["a closed the connection before it answered."]


async def test_unavailable_pods_are_reported_with_503(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_forward, "CONNECT_TIMEOUT_S", 0.5)
    told: list[str] = []
    async with leading(tmp_path, told, a="hang up", c="hang up") as (server, client):
        answer = await client.get("/")
        assert answer.status_code == 503
        assert "closed the connection before it answered" in answer.text
        assert len(server.dialled) == port_forward.MAX_ATTEMPTS
        server.objects.clear()
        await asyncio.sleep(port_forward.POD_LIST_TTL_S)
        assert "none is ready" in (await client.get("/")).text


async def test_request_waits_for_a_ready_pod(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(port_forward, "CONNECT_TIMEOUT_S", 120.0)
    told: list[str] = []
    async with leading(tmp_path, told, a="answer") as (server, client):
        [coming] = server.objects
        server.objects.clear()
        async with asyncio.TaskGroup() as tasks:
            waits = tasks.create_task(client.post("/", content=b"x"))
            while server.listed < 2:
                await asyncio.sleep(0.05)
            server.objects.append(coming)
        assert waits.result().text == "a https x"
    assert told == []


async def test_renewed_token_file_is_read_after_a_401(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old")
    async with ApiServer({"a": "answer"}, [], {"Bearer old"}).running() as server:
        dialer = TunnelDialer(ApiClient(ClusterAccess("test", server.url, token_file=file), {}))
        await (await dialer.open("shop", "a", 8080)).close()
        server.tokens = {"Bearer new"}
        with pytest.raises(ClusterLoginError):
            await dialer.open("shop", "a", 8080)
        file.write_text("new")
        await (await dialer.open("shop", "a", 8080)).close()


async def test_kubelet_error_is_shown_without_identifiers() -> None:
    async with ApiServer({"a": "refuse"}, []).running() as server:
        dialer = TunnelDialer(ApiClient(ClusterAccess("test", server.url), {}))
        made = await dialer.open("shop", "a", 8080)
        with pytest.raises(TunnelError, match=r"^a: failed to connect to localhost:8080") as caught:
            await made.read()
        assert not caught.value.reached
        await made.close()
    assert tunnel.PROTOCOL == "v4.channel.k8s.io"
