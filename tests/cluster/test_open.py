"""`lapwing open` on a real API server: bytes go through its `portforward` to a real Envoy, with the
configuration that we render, and to real servers behind it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets.sync.client
import websockets.sync.server

from tests.cluster import objects
from tests.cluster.control_plane import wait_until
from tests.cluster.servers import echo
from tests.cluster.simulated import all_take, takes
from tests.cluster.stacks import Stack
from tests.installation import free_port
from tests.integration.edge.edges import Edge, running
from tests.unit.render.clusters import cluster_environment

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


class Opened:
    """A `lapwing open` that runs, and a browser's view of it."""

    def __init__(self, stack: Stack, *words: str) -> None:
        self.stack = stack
        self.process = subprocess.Popen(
            stack.command("open", *words), env=stack.environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        if not self.url:
            raise AssertionError(self.process.communicate()[1])

    @property
    def trust(self) -> ssl.SSLContext:
        authority = self.stack.folder / "home" / "certificates" / "ca.pem"
        return ssl.create_default_context(cafile=str(authority))

    def client(self) -> httpx.Client:
        limits = httpx.Limits(max_connections=None)
        return httpx.Client(
            base_url=self.url, verify=self.trust, trust_env=False, timeout=120, limits=limits
        )

    def end(self) -> tuple[int, str]:
        """Press Ctrl-C; returns the exit status and what was said."""
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate(timeout=60)[1]
        return self.process.returncode, said


@pytest.fixture
def opened(stack: Stack) -> Iterator[Callable[..., Opened]]:
    made: list[Opened] = []

    def begin(*words: str) -> Opened:
        made.append(Opened(stack, *words))
        return made[-1]

    yield begin
    for each in made:
        each.process.kill()
        each.process.communicate()


def part(stack: Stack, name: str, port: int, named: str, replicas: int = 2) -> dict[str, Any]:
    """A Deployment with a port."""
    made = objects.workload(stack.scope, name, "shop/x:v1", replicas=replicas)
    template = made["spec"]["template"]
    template["metadata"]["labels"]["app.kubernetes.io/component"] = name
    template["spec"]["containers"][0]["ports"] = [{"name": named, "containerPort": port}]
    return made


@contextlib.contextmanager
def edge_of(case: str, environment: str, folder: Path, services: dict[str, int]) -> Iterator[Edge]:
    """A real Envoy as the edge of a golden case."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-keyout", folder / "tls.key", "-out", folder / "tls.crt"]
    asked = ["openssl", "req", "-x509", "-nodes", *key, "-subj", "/CN=fleet", *files]
    subprocess.run(asked, check=True, capture_output=True)
    with running(cluster_environment(case, environment), folder, services) as found:
        yield found


def test_open_an_edge_with_tls(stack: Stack, tmp_path: Path, opened: Callable[..., Opened]) -> None:
    """As stacks/fleetdm on kind: Envoy has a certificate of its own, signed by itself."""
    with (
        echo() as real,
        edge_of("fleet", "kind", tmp_path, {"fleet": real}) as edge,
    ):
        stack.put(part(stack, "edge", 8443, "web"))
        all_take(stack.cluster, stack.scope.namespace, {8443: edge.port})
        page = opened()
        assert page.url == f"https://localhost:{stack.port}"
        with page.client() as client:
            seen = client.get("/").json()
            assert seen["host"] == f"localhost:{stack.port}"
            assert seen["x-forwarded-proto"] == "https"
            body = os.urandom(1 << 20) * 24
            assert client.post("/", content=body).content == body
            with ThreadPoolExecutor(40) as pool:
                wanted = [os.urandom(3000) for _ in range(400)]
                came = pool.map(lambda b: client.post("/", content=b).content, wanted)
                assert list(came) == wanted
        status, said = page.end()
        assert status == 130
        assert said.startswith("Forwarding to edge of ")
        assert "(port 8443 with TLS, 2 pods)" in said
        assert said.endswith("\nInterrupted.\n")
        assert said.count("\n") == 2
        with socket.create_server(("127.0.0.1", stack.port)):
            pass  # The port is free again.


def test_open_an_edge_without_tls(
    stack: Stack, tmp_path: Path, opened: Callable[..., Opened]
) -> None:
    """The edge of a cloud speaks plain HTTP and believes X-Forwarded-Proto: we say it."""

    def talk(connection: websockets.sync.server.ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with (
        echo() as web,
        websockets.sync.server.serve(talk, "127.0.0.1", 0) as talker,
        edge_of(
            "company-inc", "production", tmp_path,
            {"web": web, "api": talker.socket.getsockname()[1]},
        ) as edge,
    ):  # fmt: skip
        threading.Thread(target=talker.serve_forever, daemon=True).start()
        stack.put(part(stack, "edge", 8080, "web"))
        all_take(stack.cluster, stack.scope.namespace, {8080: edge.port})
        page = opened()
        with page.client() as client:
            for _ in range(3):  # On one connection.
                seen = client.get("/", headers={"x-forwarded-proto": "http"}).json()
                assert seen["x-forwarded-proto"] == "https"
            body = os.urandom(1 << 20) * 24
            assert client.post("/", content=body).content == body
            in_pieces = client.post("/", content=body, headers={"content-length": str(len(body))})
            assert in_pieces.content == body
        address = f"wss://localhost:{stack.port}/api/talk"
        with websockets.sync.client.connect(address, ssl=page.trust, proxy=None) as chat:
            for message in ("hello", b"\0\1" * 50_000, "GET / HTTP/1.1\r\n\r\n"):
                chat.send(message)
                assert chat.recv(timeout=120) == message
        assert page.end()[0] == 130


def test_unreachable_pod_fails_no_request(stack: Stack, opened: Callable[..., Opened]) -> None:
    """One of two ready pods refuses connections: every page comes from the other one. What changes
    something is not sent twice where it cannot be known whether it arrived; then that is said."""
    with echo() as real:
        stack.put(part(stack, "edge", 8080, "web"))
        good, bad = stack.pods("edge")
        takes(stack.cluster, good, {8080: real})
        takes(stack.cluster, bad, {8080: free_port()})
        page = opened()
        with ThreadPoolExecutor(8) as pool:

            def ask(number: int) -> bool:
                with page.client() as client:  # On a connection of its own.
                    return client.get(f"/{number}").json()["server"] == real

            assert all(pool.map(ask, range(60)))
        answers = []
        for _ in range(10):
            with page.client() as client:
                answers.append(client.post("/", content=b"buy"))
        for answer in answers:
            assert answer.text == "buy" or "closed the connection before it answered" in answer.text
        assert page.end()[0] == 130


def test_replaced_pods_fail_no_request_under_load(
    stack: Stack, opened: Callable[..., Opened]
) -> None:
    with echo() as real:
        edge = part(stack, "edge", 8080, "web")
        stack.put(edge)
        all_take(stack.cluster, stack.scope.namespace, {8080: real})
        page = opened()
        before = {p["metadata"]["uid"] for p in stack.pods("edge")}
        over = threading.Event()

        def ask() -> int:
            count = 0
            while not over.is_set():
                with page.client() as client:
                    assert client.get("/").json()["server"] == real
                count += 1
            return count

        with ThreadPoolExecutor(3) as pool:
            asking = [pool.submit(ask) for _ in range(3)]
            try:
                edge["spec"]["template"]["spec"]["containers"][0]["image"] = "shop/x:v2"
                stack.put(edge)
                wait_until(
                    lambda: not before & {p["metadata"]["uid"] for p in stack.pods("edge")},
                    "the old pods are gone",
                )
            finally:
                over.set()
            assert sum(a.result() for a in asking) > 0
        assert page.end()[0] == 130


def test_open_reports_503_without_ready_pods_and_recovers(
    stack: Stack, opened: Callable[..., Opened]
) -> None:
    with echo() as real:
        edge = part(stack, "edge", 8080, "web", replicas=1)
        stack.put(edge)
        all_take(stack.cluster, stack.scope.namespace, {8080: real})
        page = opened()
        edge["spec"]["replicas"] = 0
        stack.put(edge)
        wait_until(lambda: not stack.pods("edge"), "no pod is there")
        with page.client() as client:
            gone = client.get("/")
            assert gone.status_code == 503
            assert gone.text == "No pod of edge accepts a connection: none is ready.\n"
            edge["spec"]["replicas"] = 1
            stack.put(edge)
            wait_until(lambda: client.get("/").status_code == 200, "the new pod answers")


def test_open_services_with_and_without_tls(
    stack: Stack, tmp_path: Path, opened: Callable[..., Opened]
) -> None:
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "crt.pem"]
    asked = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-subj", "/CN=x", *files]
    subprocess.run(asked, check=True, capture_output=True)
    both = tmp_path / "both.pem"
    both.write_bytes((tmp_path / "key.pem").read_bytes() + (tmp_path / "crt.pem").read_bytes())
    with echo(both) as secure, echo() as plain:
        stack.put(part(stack, "api", 8443, "https"), part(stack, "web", 3000, "http"))
        all_take(stack.cluster, stack.scope.namespace, {8443: secure, 3000: plain})
        page = opened("--service", "api")
        with page.client() as client:
            assert client.get("/").json()["server"] == secure
        assert "(port 8443 with TLS" in page.end()[1]
        page = opened("--service", "web")
        with page.client() as client:
            seen = client.get("/").json()
            assert (seen["server"], seen["x-forwarded-proto"]) == (plain, "https")


def test_open_reports_what_cannot_be_opened(stack: Stack) -> None:
    stack.put(part(stack, "api", 3000, "http"), part(stack, "worker", 1, "none"))
    nothing = stack.call("open")
    assert nothing.returncode == 2
    assert f"{stack.scope.stack} has no edge in the cluster" in nothing.stderr
    assert "Add `--service NAME` to forward to a service." in nothing.stderr
    nobody = stack.call("open", "--service", "nobody")
    assert nobody.returncode == 1
    assert "nobody has no pod in" in nobody.stderr
    with socket.create_server(("127.0.0.1", stack.port)), echo() as real:
        all_take(stack.cluster, stack.scope.namespace, {3000: real})
        taken = stack.call("open", "--service", "api")
        assert taken.returncode == 1
        assert f"Port {stack.port} is already in use" in taken.stderr
        assert "--port" in taken.stderr
