"""The side of a port-forward that a kubelet plays, with the words of container runtimes.

kwok, which plays the kubelet in tests/cluster, often hangs up where a kubelet says that a pod was
not reached, so that part is played here: an API server on loopback with a few pods, each of which
refuses with words, hangs up when it has read something, or answers HTTP requests with its name and
their bodies.
"""

from __future__ import annotations

import contextlib
import http
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import h11
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

REFUSED = (
    "error forwarding port 8080 to pod p, uid : failed to connect to localhost:8080 inside "
    "namespace, IPv4: dial tcp4 127.0.0.1:8080: connect: connection refused"
)
RESOURCES = {
    "/api/v1": [{"kind": "Pod", "name": "pods", "namespaced": True}],
    "/apis/apps/v1": [
        {"kind": "ReplicaSet", "name": "replicasets", "namespaced": True},
        {"kind": "Deployment", "name": "deployments", "namespaced": True},
    ],
}


@dataclass
class ApiServer:
    """`pods` maps a name to what it does: `answer`, `refuse` or `hang up`. `tokens` are taken."""

    pods: dict[str, str]
    objects: list[Mapping[str, Any]]
    tokens: set[str] = field(default_factory=set)
    port: int = 0
    dialled: list[str] = field(default_factory=list)
    listed: int = 0
    """How often the pods were asked for."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, _connection: ServerConnection, request: Request) -> Response | None:
        if self.tokens and request.headers.get("authorization") not in self.tokens:
            return _json(http.HTTPStatus.UNAUTHORIZED, {"message": "Unauthorized"})
        path = urlsplit(request.path).path
        if path in RESOURCES:
            return _json(http.HTTPStatus.OK, {"resources": RESOURCES[path]})
        if path.endswith("/portforward"):
            return None
        if path.endswith("/pods"):
            self.listed += 1
            return _json(http.HTTPStatus.OK, {"metadata": {}, "items": self.objects})
        if path.endswith(("/replicasets", "/deployments")):
            return _json(http.HTTPStatus.OK, {"metadata": {}, "items": []})
        return _json(http.HTTPStatus.NOT_FOUND, {"message": "the server could not find it"})

    async def forward(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        asked = urlsplit(connection.request.path)
        pod = asked.path.split("/")[-2]
        self.dialled.append(pod)
        port = int(parse_qs(asked.query)["ports"][0]).to_bytes(2, "little")
        for channel in (b"\0", b"\1"):
            await connection.send(channel + port)
        if self.pods[pod] == "refuse":
            await connection.send(b"\1" + REFUSED.encode())
        elif self.pods[pod] == "hang up":
            await connection.recv()
        elif self.pods[pod] == "answer":
            await _answer(connection, pod)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[ApiServer]:
        async with serve(
            self.forward, "127.0.0.1", 0, process_request=self.ask, max_size=None,
            subprotocols=["v4.channel.k8s.io"],
        ) as server:  # fmt: skip
            self.port = next(iter(server.sockets)).getsockname()[1]
            yield self


async def _answer(connection: ServerConnection, pod: str) -> None:
    """Answer requests: the pod's name, the forwarded scheme and the body."""
    server, said = h11.Connection(h11.SERVER), b""
    async for message in connection:
        assert isinstance(message, bytes)
        assert message[0] == 0
        server.receive_data(message[1:])
        while (event := server.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Request):
                scheme = dict(event.headers).get(b"x-forwarded-proto", b"-")
                said = pod.encode() + b" " + scheme + b" "
            elif isinstance(event, h11.Data):
                said += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                fields = [("content-length", str(len(said)))]
                out = server.send(h11.Response(status_code=200, headers=fields))
                out = (out or b"") + (server.send(h11.Data(data=said)) or b"")
                out += server.send(h11.EndOfMessage()) or b""
                for at in range(0, len(out), 30_000):
                    await connection.send(b"\0" + out[at : at + 30_000])
                server.start_next_cycle()


def _json(status: http.HTTPStatus, content: object) -> Response:
    body = json.dumps(content).encode()
    fields = Headers(
        {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "connection": "close",
        }
    )
    return Response(status.value, status.phrase, fields, body)
