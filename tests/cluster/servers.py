"""Servers on this machine that stand behind the ports of simulated pods."""

from __future__ import annotations

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Echo(http.server.BaseHTTPRequestHandler):
    """GET answers with the fields of the request, POST with its body as it comes."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        fields = {name.lower(): value for name, value in self.headers.items()}
        body = json.dumps({"server": self.server.server_address[1], **fields}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        left = int(self.headers["content-length"])
        self.send_response(200)
        self.send_header("content-length", str(left))
        self.end_headers()
        while left:
            piece = self.rfile.read(min(left, 65536))
            left -= len(piece)
            self.wfile.write(piece)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class Fixed(Echo):
    """GET answers with the status of the server."""

    server: FixedServer

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


class FixedServer(_Server):
    """A server with one status for every request, which can be changed."""

    def __init__(self, status: int) -> None:
        super().__init__(("127.0.0.1", 0), Fixed)
        self.status = status


@contextlib.contextmanager
def fixed(status: int) -> Iterator[FixedServer]:
    """A server that answers with a status."""
    with FixedServer(status) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@contextlib.contextmanager
def echo(certificate: Path | None = None) -> Iterator[int]:
    """A server that echoes, with TLS if it is given a key and certificate; gives its port."""
    server = _Server(("127.0.0.1", 0), Echo)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
