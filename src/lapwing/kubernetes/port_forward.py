"""Forward a local port, with TLS, to pods of a cluster.

    browser --TLS, local CA--> PortForwarder --API server--> a ready pod of the edge (or service)

A pod is chosen when the first bytes of a connection have arrived, so one that a browser opens in
advance is not bound to a pod that is gone by then. Only pods are chosen that are ready and not
terminating, of a service only those of the active slot: after a switch, new connections go to the
new slot, and open ones end where they began. What was sent is kept until the pod answers; if the
cluster reports that the pod was not reached, it is sent to another one. If that is unknown, only a
safe request (GET, HEAD, OPTIONS) is sent again; others are answered with 503.

Where the pod speaks TLS itself (an edge without a load balancer before it), TLS is spoken to it;
where it does not, each request gets `X-Forwarded-Proto: https` (`forwarded_proto`).
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lapwing.agent.proxy import sockets
from lapwing.errors import ClusterError, LapwingError
from lapwing.kubernetes import Report
from lapwing.kubernetes.applyset import Scope
from lapwing.kubernetes.client import ApiClient
from lapwing.kubernetes.forwarded_proto import RequestRewriter
from lapwing.kubernetes.pods import Pod, list_pods
from lapwing.kubernetes.tunnel import CHUNK_BYTES, Stream, TunnelDialer, TunnelError

POD_LIST_TTL_S = 1.0
CONNECT_TIMEOUT_S = 15.0
"""Seconds in which a connection waits for a pod that accepts it."""
RETRY_DELAY_S = 0.25
TLS_PROBE_TIMEOUT_S = 10.0
MAX_REPLAY_BYTES = 1 << 20
"""Bytes of a connection that are kept until its pod has answered."""
MAX_ATTEMPTS = 3
"""Pods that one request is sent to, if they close the connection without an answer."""
SAFE_REQUEST = re.compile(rb"(GET|HEAD|OPTIONS) [^\r\n]*\r?\n([^\r\n]+\r?\n)*\r?\n")
"""One whole request that may be sent again. Source: RFC 9110, section 9.2."""


@dataclass(frozen=True, slots=True)
class ForwardTarget:
    """Where connections go: `part` is `edge` or a service. `tls`: the pod speaks TLS there."""

    scope: Scope
    part: str
    port: int
    tls: bool


def candidates(found: list[Pod], part: str) -> list[Pod]:
    """Return the pods that may get a connection."""
    return [p for p in found if p.service == part and p.ready and p.active]


def port_of(pod: Pod) -> int | None:
    """Return the port on which a pod serves: the named one of its first container."""
    ports = pod.pod["spec"]["containers"][0].get("ports") or ()
    named = {p.get("name"): int(p["containerPort"]) for p in ports}
    for name in ("web", "http"):
        if name in named:
            return named[name]
    return next(iter(named.values()), None)


async def speaks_tls(dialer: TunnelDialer, found: Sequence[Pod], port: int) -> bool:
    """Return whether the first of these pods that answers speaks TLS. Raises ClusterError."""
    for pod in found:
        try:
            async with asyncio.timeout(TLS_PROBE_TIMEOUT_S):
                made = await dialer.open_tls(pod.namespace, pod.name, port)
        except (ssl.SSLError, TimeoutError):
            return False
        except TunnelError:
            continue
        await made.close()
        return True
    return False


class PodSelector:
    """Selects the pod of each connection, in turn; lists the pods when they are needed."""

    def __init__(self, api: ApiClient, target: ForwardTarget) -> None:
        """Select among the pods of a target."""
        self._api, self._target = api, target
        self._pods: list[Pod] = []
        self._listed = float("-inf")
        self._turn = 0
        self._lock = asyncio.Lock()

    async def next(self, avoided: set[str]) -> Pod | None:
        """Return the next pod, of another uid than those avoided if there is one.

        Raises ClusterError.
        """
        async with self._lock:
            if time.monotonic() - self._listed > POD_LIST_TTL_S:
                found = await asyncio.to_thread(list_pods, self._api, self._target.scope)
                self._pods = candidates(found, self._target.part)
                self._listed = time.monotonic()
        self._turn += 1
        others = [p for p in self._pods if p.uid not in avoided] or self._pods
        return others[self._turn % len(others)] if others else None


@dataclass(slots=True)
class PortForwarder:
    """Forwards connections to pods. `report` gets each problem once."""

    dialer: TunnelDialer
    selector: PodSelector
    target: ForwardTarget
    report: Report
    _reported: set[str] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection of a client until it ends."""
        try:
            await _Connection(self, reader, writer).run()
        except LapwingError as error:
            if error.message not in self._reported:
                self._reported.add(error.message)
                self.report(error.message)
            if not writer.is_closing():
                writer.write(_unavailable_reply(error.message))
        except (OSError, ssl.SSLError, asyncio.CancelledError):
            pass  # The client has gone, or the command is ending.
        finally:
            writer.close()

    async def dial(self, avoided: set[str]) -> Stream:
        """Connect to a pod, and add its uid to those that are avoided next time.

        Raises ClusterError if no pod accepts the connection in time.
        """
        began = time.monotonic()
        last: Exception | None = None
        while True:
            try:
                pod = await self.selector.next(avoided)
                if pod is not None:
                    avoided.add(pod.uid)
                    return await self._open(pod)
                last = None
            except (ClusterError, ssl.SSLError) as error:
                last = error
            if time.monotonic() - began > CONNECT_TIMEOUT_S:
                reason = last if last is not None else "none is ready."
                raise ClusterError(f"No pod of {self.target.part} accepts a connection: {reason}")
            await asyncio.sleep(RETRY_DELAY_S)

    async def _open(self, pod: Pod) -> Stream:
        address = (pod.namespace, pod.name, self.target.port)
        if self.target.tls:
            return await self.dialer.open_tls(*address)
        made = await self.dialer.open(*address)
        try:
            await made.settle()
        except BaseException:
            await made.close()
            raise
        return made


class _Connection:
    """A connection of a client, and the one to a pod that it is forwarded to."""

    def __init__(
        self, forwarder: PortForwarder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._forwarder, self._reader, self._writer = forwarder, reader, writer
        self._rewriter = None if forwarder.target.tls else RequestRewriter()
        self._sent: bytearray | None = bytearray()
        """What was sent to the pod, until it answers."""
        self._attempts = 0
        self._avoided: set[str] = set()
        self._lock = asyncio.Lock()
        """Held while bytes are sent, or while another pod is dialled to send them to."""
        self._pod: Stream

    async def run(self) -> None:
        """Forward until either side closes. Raises ClusterError if the client got no answer."""
        first = await self._reader.read(CHUNK_BYTES)
        if not first:
            return
        self._pod = await self._forwarder.dial(self._avoided)
        upstream = asyncio.create_task(self._send_requests(first))
        downstream = asyncio.create_task(self._send_responses())
        try:
            done, _ = await asyncio.wait(
                {upstream, downstream}, return_when=asyncio.FIRST_COMPLETED
            )
            if upstream in done and upstream.exception() is None and not upstream.result():
                await asyncio.wait({downstream})  # The pod closed its end; it may still answer.
            for task in (downstream, upstream):
                if task.done() and (error := task.exception()) is not None:
                    raise error
        finally:
            for task in (downstream, upstream):
                task.cancel()
            await asyncio.gather(downstream, upstream, return_exceptions=True)
            await self._pod.close()

    async def _send_requests(self, data: bytes) -> bool:
        """Forward from client to pod; returns whether the client closed (else the pod did)."""
        while data:
            rewritten = self._rewriter.feed(data) if self._rewriter else data
            async with self._lock:
                if not await self._send(rewritten):
                    return False
            data = await self._reader.read(CHUNK_BYTES)
        return True

    async def _send(self, data: bytes) -> bool:
        if self._sent is not None:
            self._sent += data
            if len(self._sent) > MAX_REPLAY_BYTES:
                self._sent = None
        try:
            await self._pod.write(data)
        except TunnelError:
            return self._sent is not None  # The other task gets the reason, and may resend.
        return True

    async def _send_responses(self) -> None:
        """Forward from pod to client."""
        while True:
            try:
                data = await self._pod.read()
            except TunnelError as error:
                if self._sent is None:
                    return  # The client sees an incomplete response.
                if error.reached and not self._may_resend():
                    raise
                await self._resend()
                continue
            if not data:
                return
            self._sent = None
            self._writer.write(data)
            await self._writer.drain()

    def _may_resend(self) -> bool:
        """Whether what was sent may be sent a second time."""
        self._attempts += 1
        is_safe = SAFE_REQUEST.fullmatch(self._sent or b"") is not None
        return self._attempts < MAX_ATTEMPTS and is_safe

    async def _resend(self) -> None:
        """Dial another pod, and send it what the first did not receive."""
        failed = self._pod
        await failed.close()  # Ends a send that is in progress.
        async with self._lock:
            self._pod = await self._forwarder.dial(self._avoided)
            if self._sent:
                try:
                    await self._pod.write(bytes(self._sent))
                except TunnelError:
                    pass  # The next read raises the reason.


def _unavailable_reply(message: str) -> bytes:
    """Return the response to a client whose request no pod accepts."""
    body = f"{message}\n".encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def listen(
    forwarder: PortForwarder, addresses: Sequence[str], port: int, certificate: Path
) -> list[asyncio.Server]:
    """Listen on a port of these addresses. Raises PortTakenError or ProxyError.

    `certificate` is a file with the key and the certificate chain.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate)
    servers: list[asyncio.Server] = []
    for address in addresses:
        sockets.check_port(address, port)
        try:
            servers.append(
                await asyncio.start_server(
                    forwarder.serve, address, port, ssl=context, ssl_handshake_timeout=30
                )
            )
        except OSError as error:
            raise sockets.port_taken(port) from error
    return servers
