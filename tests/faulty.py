"""A proxy in front of a real registry that does what networks and registries do on bad days.

It hands every request on to the registry, but where a `Fault` fits: then it breaks the connection,
changes bytes, lies in a header, asks to wait or answers 5xx, as often as the fault says. It can
want a login, too: Basic, or Bearer with tokens from the small token server that it brings along;
a token can be made to end after some requests. Everything that was asked is in `seen`.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

PIECE = 16 * 1024
PATIENCE_S = 120.0

Kind = Literal[
    "cut-answer",  # the connection dies after `bytes` of the answer's body
    "cut-request",  # it dies after `bytes` of the request's body, which the registry gets
    "drop-request",  # it dies before the registry gets anything: a proxy was collecting the body
    "lose-answer",  # the registry does what was asked, and the answer never comes
    "answer-after",  # the registry does what was asked, and `status` comes instead of its answer
    "change-answer",  # a byte of the answer's body is another
    "slow-answer",  # the answer's body comes in pieces, with `seconds` between them
    "answer",  # `status`, `headers` and `body` instead of asking the registry
    "hold",  # the request waits for `gate` before it is handed on
    "headers",  # the registry's answer with other `headers`
    "status",  # the registry's answer with another `status`
]


@dataclass
class Fault:
    """What goes wrong with requests of `method` whose path matches `path`: `times` times, after
    the first `after` of them."""

    kind: Kind
    method: str
    path: str
    times: int = 1
    after: int = 0
    bytes: int = 0
    seconds: float = 0.0
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    gate: threading.Event = field(default_factory=threading.Event)
    met: int = 0
    happened: int = 0


@dataclass
class Seen:
    """A request that was made, from when its head has come."""

    method: str
    path: str
    headers: dict[str, str]
    status: int = 0
    received: int = 0
    """Bytes of its body."""


@dataclass
class Login:
    """What the proxy wants. `uses` is how many requests a token is good for."""

    scheme: Literal["basic", "bearer"]
    user: str = "robot"
    password: str = "s3cret-pass"
    uses: int = 1_000_000
    expires_in: int = 300
    refresh_token: str | None = None
    scopes: list[list[str]] = field(default_factory=list)
    """The scopes of every token that was given out."""
    tokens: dict[str, int] = field(default_factory=dict)


class Proxy:
    """The proxy at `host`, in front of the registry at `upstream`."""

    def __init__(self, upstream: str, login: Login | None = None) -> None:
        self.upstream = upstream
        self.login = login
        self.faults: list[Fault] = []
        self.seen: list[Seen] = []
        self.connections = 0
        self.lock = threading.Lock()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_address[1]}"

    def fail(self, kind: Kind, method: str, path: str, **details: Any) -> Fault:
        """From now on, let something go wrong."""
        fault = Fault(kind, method, path, **details)
        self.faults.append(fault)
        return fault

    def count(self, method: str, path: str) -> int:
        """How many requests of a method whose path matches were made."""
        return len(self.requests(method, path))

    def requests(self, method: str, path: str) -> list[Seen]:
        """The requests of a method whose path matches."""
        return [s for s in self.seen if s.method == method and re.search(path, s.path)]

    def received(self, path: str) -> int:
        """Bytes of all bodies that came to a path."""
        return sum(s.received for s in self.seen if re.search(path, s.path))

    def due(self, method: str, path: str) -> Fault | None:
        """The fault that fits a request, counted as having happened."""
        with self.lock:
            for fault in self.faults:
                fits = fault.method == method and re.search(fault.path, path)
                fault.met += bool(fits)
                if fits and fault.met > fault.after and fault.happened < fault.times:
                    fault.happened += 1
                    return fault
        return None


@contextmanager
def proxy(upstream: str, login: Login | None = None) -> Iterator[Proxy]:
    """Run a proxy in a thread."""
    running = Proxy(upstream, login)
    thread = threading.Thread(target=running.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield running
    finally:
        running.server.shutdown()
        running.server.server_close()
        thread.join(10)


def _handler(owner: Proxy) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        proxy = owner

    return Handler


class _Broken(Exception):
    """The connection to the client has been broken on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def setup(self) -> None:
        with self.proxy.lock:
            self.proxy.connections += 1
        super().setup()

    def log_message(self, *_: object) -> None:
        pass

    def handle_one(self) -> None:
        self._seen = Seen(self.command, self.path, dict(self.headers))
        with self.proxy.lock:
            self.proxy.seen.append(self._seen)
        try:
            if self.path.startswith("/token"):
                self._token()
            elif self._allowed():
                self._serve()
        except (_Broken, OSError):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_one

    def _serve(self) -> None:
        fault = self.proxy.due(self.command, self.path)
        if fault and fault.kind == "answer":
            self._read_away()
            self._answer(fault.status, fault.headers, fault.body)
            return
        if fault and fault.kind == "drop-request":
            raise _Broken
        if fault and fault.kind == "hold":
            assert fault.gate.wait(PATIENCE_S), "nobody opened the gate"
        upstream = http.client.HTTPConnection(self.proxy.upstream, timeout=60)
        try:
            self._hand_on(upstream, fault)
            answer = upstream.getresponse()
            if fault and fault.kind == "lose-answer":
                answer.read()
                raise _Broken
            if fault and fault.kind == "answer-after":
                answer.read()
                self._answer(fault.status, fault.headers, fault.body)
                return
            self._give_back(answer, fault)
        finally:
            upstream.close()

    def _hand_on(self, upstream: http.client.HTTPConnection, fault: Fault | None) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            ours = name.lower() == "authorization" and self.proxy.login is not None
            if name.lower() != "connection" and not ours:
                upstream.putheader(name, value)
        upstream.endheaders()
        left = self._length()
        if fault and fault.kind == "cut-request":
            left = min(left, fault.bytes)
        while left:
            piece = self.rfile.read(min(left, PIECE))
            if not piece:
                raise _Broken
            upstream.send(piece)
            self._seen.received += len(piece)
            left -= len(piece)
        if fault and fault.kind == "cut-request":
            raise _Broken

    def _give_back(self, answer: http.client.HTTPResponse, fault: Fault | None) -> None:
        kind = fault.kind if fault else None
        self._seen.status = fault.status if fault and kind == "status" else answer.status
        self.send_response_only(self._seen.status)
        given = {n.lower(): v for n, v in answer.getheaders() if n.lower() != "connection"}
        given |= fault.headers if fault and kind == "headers" else {}
        if given.pop("transfer-encoding", None):
            time.sleep(fault.seconds if fault and kind == "slow-answer" else 0)
            self._whole(given, answer.read())  # Its pieces came apart here already.
            return
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        passed = 0
        while piece := answer.read(PIECE):
            if fault and kind == "cut-answer" and passed + len(piece) > fault.bytes:
                self.wfile.write(piece[: fault.bytes - passed])
                raise _Broken
            if kind == "change-answer" and passed == 0:
                piece = bytes([piece[0] ^ 1]) + piece[1:]
            if fault and kind == "slow-answer":
                time.sleep(fault.seconds)
            self.wfile.write(piece)
            passed += len(piece)
        if given.get("content-length") and self.command != "HEAD":
            # A length that is a lie: the client has to find out by itself.
            self.close_connection |= int(given["content-length"]) != passed

    def _allowed(self) -> bool:
        login = self.proxy.login
        if login is None:
            return True
        given = self.headers.get("Authorization", "")
        if login.scheme == "basic":
            pair = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
            fits, challenge = given == f"Basic {pair}", 'Basic realm="tests"'
        else:
            with self.proxy.lock:
                left = login.tokens.get(given.removeprefix("Bearer "), 0)
                fits = left > 0
                if fits:
                    login.tokens[given.removeprefix("Bearer ")] = left - 1
            realm = f"http://{self.proxy.host}/token"
            challenge = f'Bearer realm="{realm}",service="tests",scope="x"'
        if not fits:
            self._read_away()
            self._answer(401, {"WWW-Authenticate": challenge}, b'{"errors": []}')
        return fits

    def _token(self) -> None:
        """The token server: GET with Basic, or POST with a refresh token."""
        login = self.proxy.login
        assert login is not None
        asked = parse_qs(urlsplit(self.path).query)
        if self.command == "POST":
            form = parse_qs(self._read_away().decode())
            good = form.get("refresh_token") == [login.refresh_token]
            scopes = form.get("scope", [""])[0].split()
        else:
            pair = base64.b64encode(f"{login.user}:{login.password}".encode()).decode()
            good = self.headers.get("Authorization") == f"Basic {pair}"
            scopes = asked.get("scope", [])
        if not good:
            self._answer(401, {}, b"{}")
            return
        token = secrets.token_hex(8)
        with self.proxy.lock:
            login.tokens[token] = login.uses
            login.scopes.append(scopes)
        body = {"token": token, "expires_in": login.expires_in}
        self._answer(200, {"Content-Type": "application/json"}, json.dumps(body).encode())

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self._seen.status = status
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _whole(self, headers: dict[str, str], body: bytes) -> None:
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _read_away(self) -> bytes:
        data = self.rfile.read(self._length())
        self._seen.received += len(data)
        return data

    def _length(self) -> int:
        return int(self.headers.get("Content-Length") or 0)
