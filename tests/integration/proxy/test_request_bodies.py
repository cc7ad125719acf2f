"""Slow, large and endless request bodies, sent through the real Envoy to a server with few workers.

The server reads each request on the only thread, as a gunicorn sync worker does: a client that is
slow to send its body keeps everybody else out, unless the proxy waits for the body.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event, ResponseReceived, StreamEnded, StreamReset

from lapwing.agent.proxy.model import Cluster, Route, RouteTable, VirtualHost
from lapwing.agent.proxy.supervisor import Envoy
from lapwing.settings import Settings
from tests.installation import free_port
from tests.integration.edge.edges import running
from tests.unit.render.helm.test_stack import cluster_environment

HOST = "127.0.0.1"
LIMIT = 300_000
SLOW_CLIENTS = 6
STACK = """
stack: shop
services:
  app: {image: registry.example/app:1, route: /, buffering: {max_request_body: 300k}}
  upload: {image: registry.example/app:1, route: /stream, buffering: false}
environments:
  production:
    target: kubernetes
    domain: shop.example
    cloud: {provider: gcp, region: europe-west1}
"""

Connect = Callable[[], socket.socket]


class OneWorker(BaseHTTPRequestHandler):
    """Answers with what it received, one request after the other."""

    protocol_version = "HTTP/1.1"
    timeout = 60

    def do_GET(self) -> None:
        if self.headers["upgrade"] == "websocket":
            self.wfile.write(b"HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
            self.wfile.write(self.rfile.read(4))
        elif self.path == "/events":
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            self.wfile.write(b"data: 1\n\n")
            self.server.more.wait(30)  # type: ignore[attr-defined]
            self.wfile.write(b"data: 2\n\n")
        else:
            self._answer(b"")
        self.close_connection = True

    def do_POST(self) -> None:
        self.server.posted.set()  # type: ignore[attr-defined]
        if self.headers["transfer-encoding"] == "chunked":
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers["content-length"]))
        self._answer(body)
        self.close_connection = True

    def _chunk(self) -> bytes:
        chunk = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return chunk

    def _answer(self, body: bytes) -> None:
        got = {"bytes": len(body), "headers": {k.lower(): v for k, v in self.headers.items()}}
        text = json.dumps(got).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """A server that handles one request at a time."""
    found = HTTPServer(("127.0.0.1", 0), OneWorker)
    found.more, found.posted = threading.Event(), threading.Event()  # type: ignore[attr-defined]
    found.handle_error = lambda *_: None  # type: ignore[method-assign]
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        found.more.set()  # type: ignore[attr-defined]
        found.shutdown()
        thread.join()
        found.server_close()


@pytest.fixture
async def machine(server: HTTPServer, tmp_path: Path) -> AsyncIterator[Connect]:
    """How to connect to the Envoy of a machine; `/stream` is not buffered."""
    settings = Settings(home=tmp_path, port=free_port(), bind="127.0.0.1", body_timeout=3)
    proxy = Envoy(settings)
    await proxy.start()
    try:
        cluster = Cluster("shop/local/app/blue-1", (server.server_port,))
        await proxy.publish_clusters([cluster])
        await proxy.wait_for_clusters([cluster.name], 10)
        routes = (Route("/stream", cluster.name), Route("/", cluster.name, max_body=LIMIT))
        await proxy.publish_routes(RouteTable("1", (VirtualHost("a", ("127.0.0.1",), routes),)))
        await proxy.confirmed("1", 10)
        context = ssl.create_default_context(cafile=str(settings.certificates / "ca.pem"))
        yield lambda: context.wrap_socket(
            socket.create_connection(("127.0.0.1", settings.port), 30), server_hostname="127.0.0.1"
        )
    finally:
        await proxy.stop()


@pytest.fixture
def cluster_edge(server: HTTPServer, tmp_path: Path) -> Iterator[Connect]:
    """How to connect to the edge of a cluster that was rendered from a stack file."""
    made = cluster_environment(tmp_path, STACK, "production")
    services = {"app": server.server_port, "upload": server.server_port}
    with running(made, tmp_path, services) as edge:
        yield lambda: socket.create_connection(("127.0.0.1", edge.port), 30)


@pytest.fixture(params=["machine", "cluster_edge"])
def connect(request: pytest.FixtureRequest) -> Connect:
    found: Connect = request.getfixturevalue(request.param)
    return found


def send(connect: Connect, path: str, *headers: str, body: bytes = b"") -> socket.socket:
    """Send the head of a POST request, and what is there of its body."""
    found = connect()
    head = (f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", "")
    found.sendall("\r\n".join(head).encode() + body)
    return found


def receive(connection: socket.socket) -> tuple[int, bytes]:
    """Return status and body of the response."""
    with connection:
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, response.read()


def get(connect: Connect, path: str = "/") -> float:
    """Send a GET request; returns the seconds until the response."""
    connection, began = connect(), time.monotonic()
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    assert receive(connection)[0] == 200
    return time.monotonic() - began


def test_slow_uploads_do_not_occupy_the_workers(connect: Connect) -> None:
    slow = [send(connect, "/", "Content-Length: 9", body=b"abc") for _ in range(SLOW_CLIENTS)]
    assert get(connect) < 2
    for connection in slow:
        connection.sendall(b"defghi")
    for connection in slow:
        status, body = receive(connection)
        assert (status, json.loads(body)["bytes"]) == (200, 9)


def test_streamed_body_reaches_the_service_before_it_ends(
    connect: Connect, server: HTTPServer
) -> None:
    posted: threading.Event = server.posted  # type: ignore[attr-defined]
    buffered = send(connect, "/", "Content-Length: 9", body=b"abc")
    get(connect)
    assert not posted.is_set()
    buffered.close()
    streamed = send(connect, "/stream", "Content-Length: 9", body=b"abc")
    assert posted.wait(20)
    streamed.sendall(b"defghi")
    assert receive(streamed)[0] == 200


def test_chunked_body_arrives_with_a_length(connect: Connect) -> None:
    chunks = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    status, body = receive(send(connect, "/", "Transfer-Encoding: chunked", body=chunks))
    got = json.loads(body)
    assert (status, got["bytes"], got["headers"]["content-length"]) == (200, 5, "5")


def test_chunked_body_is_streamed_where_the_service_wants_it(connect: Connect) -> None:
    chunks = b"3\r\nabc\r\n0\r\n\r\n"
    status, body = receive(send(connect, "/stream", "Transfer-Encoding: chunked", body=chunks))
    assert (status, json.loads(body)["headers"].get("content-length")) == (200, None)


def test_body_over_the_buffers_of_a_connection_is_accepted(connect: Connect) -> None:
    """Envoy's limit of a connection is 64 KiB; that of the route counts."""
    body = b"x" * (LIMIT - 1)
    status, answer = receive(send(connect, "/", f"Content-Length: {len(body)}", body=body))
    assert (status, json.loads(answer)["bytes"]) == (200, len(body))


def test_body_over_the_limit_is_answered_413(connect: Connect) -> None:
    size = LIMIT + 1
    connection = send(connect, "/", f"Content-Length: {2 * size}", body=b"x" * size)
    assert receive(connection)[0] == 413


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "no-length"])
def test_http2_body_over_the_limit_is_answered_413_before_the_stream_is_reset(
    connect: Connect, declared: bool
) -> None:
    """The whole reply, then RST_STREAM with NO_ERROR, as RFC 9113 describes in section 8.1."""
    headers = [(":method", "POST"), (":scheme", "https"), (":path", "/"), (":authority", HOST)]
    client, left, events = H2Connection(), 2 * LIMIT, list[Event]()
    client.initiate_connection()
    client.send_headers(1, headers + [("content-length", str(3 * LIMIT))] * declared)
    with connect() as connection:
        while not any(isinstance(e, StreamReset) for e in events):
            while size := min(left, client.local_flow_control_window(1), 16384):
                client.send_data(1, b"x" * size)
                left -= size
            connection.sendall(client.data_to_send())
            received = connection.recv(65536)
            assert received, "the connection was closed without a reply"
            events += client.receive_data(received)
    end = [e for e in events if isinstance(e, ResponseReceived | StreamEnded | StreamReset)]
    response, ended, reset = end
    assert isinstance(response, ResponseReceived)
    assert dict(response.headers)[b":status"] == b"413"
    assert isinstance(ended, StreamEnded)
    assert isinstance(reset, StreamReset)
    assert reset.error_code == ErrorCodes.NO_ERROR


def test_streamed_body_has_no_limit(connect: Connect) -> None:
    body = b"x" * (3 * LIMIT)
    status, answer = receive(send(connect, "/stream", f"Content-Length: {len(body)}", body=body))
    assert (status, json.loads(answer)["bytes"]) == (200, len(body))


def test_client_may_wait_for_100_continue(connect: Connect) -> None:
    connection = send(connect, "/", "Content-Length: 5", "Expect: 100-continue")
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert connection.recv(len(interim)) == interim
    connection.sendall(b"hello")
    assert receive(connection)[0] == 200


def test_websocket_is_not_buffered(connect: Connect) -> None:
    with connect() as connection:
        upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        connection.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{upgrade}".encode())
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(1000)
        assert b" 101 " in received
        connection.sendall(b"ping")
        assert connection.recv(4) == b"ping"


def test_events_arrive_one_by_one(connect: Connect, server: HTTPServer) -> None:
    with connect() as connection:
        connection.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        received = b""
        while b"data: 1" not in received:
            received += connection.recv(1000)
        server.more.set()  # type: ignore[attr-defined]
        while b"data: 2" not in received:
            received += connection.recv(1000)


def test_websocket_and_events_outlive_the_body_timeout(
    machine: Connect, server: HTTPServer
) -> None:
    server.process_request = threaded(server)  # type: ignore[method-assign]
    socket_, events = machine(), machine()
    head = "HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    socket_.sendall(f"GET / {head}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n".encode())
    events.sendall(f"GET /events {head}\r\n".encode())
    with socket_, events:
        assert socket_.recv(1000).startswith(b"HTTP/1.1 101")
        assert events.recv(1000).startswith(b"HTTP/1.1 200")
        late = send(machine, "/", "Content-Length: 9", body=b"abc")
        assert receive(late)[0] == 408, "the time of a body is over, and has begun later"
        server.more.set()  # type: ignore[attr-defined]
        received = b""
        while b"data: 2" not in received:
            received += events.recv(1000)
        socket_.sendall(b"ping")
        assert socket_.recv(4) == b"ping"


def threaded(server: HTTPServer) -> Callable[[Any, Any], None]:
    """How the server handles each request in a thread."""

    def process(request: Any, address: Any) -> None:
        def handle() -> None:
            server.finish_request(request, address)
            server.shutdown_request(request)

        threading.Thread(target=handle, daemon=True).start()

    return process


def test_body_that_does_not_arrive_in_time_is_answered_408(machine: Connect) -> None:
    assert receive(send(machine, "/", "Content-Length: 9", body=b"abc"))[0] == 408
    assert get(machine) < 2
