"""A port of this machine, with TLS, that leads to pods of a cluster.

    browser --TLS, local CA--> PortForwarder --API server--> a ready pod of the edge (or service)

A pod is chosen when the first bytes of a connection are here, so one that a browser opens in
advance is not bound to a pod that is gone by then. Only pods that are ready and are not told to end
are chosen, of a service only those of the active slot: after a switch, new connections go to the
new slot, and those under way end where they began. What was sent is kept until the pod answers; if
the cluster says that the pod was not reached, another one gets it. When that cannot be known, only
a request that changes nothing (GET, HEAD, OPTIONS) is sent to another; others are answered 503.

Where the pod speaks TLS itself (an edge without a load balancer before it), TLS is spoken to it
again; where it does not, each request says that it came by HTTPS (`requests`).
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lapwing.agent.proxy import sockets
from lapwing.errors import ClusterError, LapwingError
from lapwing.kubernetes import pods
from lapwing.kubernetes.forwarded_proto import RequestRewriter
from lapwing.kubernetes.pods import Pod
from lapwing.kubernetes.tunnel import PIECE, Stream, TunnelDialer, TunnelError

if TYPE_CHECKING:
    from lapwing.kubernetes.apply import Scope
    from lapwing.kubernetes.client import ApiClient

FRESH = 1.0
"""Seconds for which a list of pods is used."""
PATIENCE = 15.0
"""Seconds in which a connection waits for a pod that takes it."""
PAUSE = 0.25
"""Seconds between two tries."""
KEPT = 1 << 20
"""Bytes of a connection that are kept until its pod has answered."""

TRIES = 3
"""Pods that one request is sent to, if they hang up without an answer."""
HARMLESS = re.compile(rb"(GET|HEAD|OPTIONS) [^\r\n]*\r?\n([^\r\n]+\r?\n)*\r?\n")
"""One whole request that may be sent again. Source: RFC 9110, section 9.2."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Place:
    """Where connections go: a part of an environment (`edge`, or a service), and the number of the
    port. `tls` says whether the pod speaks TLS there."""

    scope: Scope
    part: str
    port: int
    tls: bool


def candidates(found: list[Pod], part: str) -> list[Pod]:
    """The pods that may be sent a connection. Pure."""
    return [i for i in found if i.service == part and i.ready and i.active]


def port_of(instance: Pod) -> int | None:
    """The port on which a pod answers requests: the first that its first container names. Pure."""
    first = instance.pod["spec"]["containers"][0]
    named = {p.get("name"): int(p["containerPort"]) for p in first.get("ports") or ()}
    for name in ("web", "http"):
        if name in named:
            return named[name]
    return next(iter(named.values()), None)


async def speaks_tls(dialer: TunnelDialer, found: Sequence[Pod], port: int) -> bool:
    """Whether TLS is spoken at a port of these pods, as the first says that says anything. Raises
    ClusterError."""
    for instance in found:
        try:
            async with asyncio.timeout(10):
                made = await dialer.secured(instance.namespace, instance.name, port)
        except (ssl.SSLError, TimeoutError):
            return False
        except TunnelError:
            continue
        await made.close()
        return True
    return False


class PodSelector:
    """The pods that take connections, looked up when they are needed."""

    def __init__(self, api: ApiClient, place: Place) -> None:
        self._api, self._place = api, place
        self._found: list[Pod] = []
        self._looked = float("-inf")
        self._turn = 0
        self._busy = asyncio.Lock()

    async def next(self, avoided: set[str]) -> Pod | None:
        """A pod in turn, another than those avoided (by their uid) if there is one. Raises
        ClusterError."""
        async with self._busy:
            if time.monotonic() - self._looked > FRESH:
                place = self._place
                found = await asyncio.to_thread(pods.of_scope, self._api, place.scope)
                self._found = candidates(found, place.part)
                self._looked = time.monotonic()
        self._turn += 1
        others = [i for i in self._found if i.uid not in avoided] or self._found
        return others[self._turn % len(others)] if others else None


@dataclass(slots=True)
class PortForwarder:
    """Leads connections to pods. `tell` is told what goes wrong, each thing once."""

    dialer: TunnelDialer
    backends: PodSelector
    place: Place
    tell: Tell
    _told: set[str] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection of a client to its end."""
        try:
            await _Carried(self, reader, writer).run()
        except LapwingError as error:
            self.once(error.message)
            if not writer.is_closing():
                writer.write(_unavailable(error.message))
        except (OSError, ssl.SSLError, asyncio.CancelledError):
            pass  # The client has gone, or we are told to end.
        finally:
            writer.close()

    async def dial(self, avoided: set[str]) -> Stream:
        """Connect to a pod that takes it, and add its uid to those that are avoided next time.
        Raises ClusterError when none has done so in time."""
        began = time.monotonic()
        last: Exception | None = None
        while True:
            try:
                pod = await self.backends.next(avoided)
                if pod is not None:
                    avoided.add(pod.uid)
                    return await self._open(pod)
                last = None
            except (ClusterError, ssl.SSLError) as error:
                last = error
            if time.monotonic() - began > PATIENCE:
                raise ClusterError(
                    f"No pod of {self.place.part} takes a connection"
                    + (f": {last}" if last is not None else ": none is ready.")
                )
            await asyncio.sleep(PAUSE)

    async def _open(self, pod: Pod) -> Stream:
        where = (pod.namespace, pod.name, self.place.port)
        if self.place.tls:
            return await self.dialer.secured(*where)
        made = await self.dialer.open(*where)
        try:
            await made.settle()
        except BaseException:
            await made.close()
            raise
        return made

    def once(self, text: str) -> None:
        """Tell something, if it was not told yet."""
        if text not in self._told:
            self._told.add(text)
            self.tell(text)


class _Carried:
    """One connection of a client, and the connection to a pod that it is carried on."""

    def __init__(
        self, forwarder: PortForwarder, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._forwarder, self._reader, self._writer = forwarder, reader, writer
        self._marker = None if forwarder.place.tls else RequestRewriter()
        self._sent: bytearray | None = bytearray()
        """What the pod was sent, until it answers."""
        self._tries = 0
        self._avoided: set[str] = set()
        self._turn = asyncio.Lock()
        """Held while bytes are sent, or while another pod is found to send them to."""
        self._pod: Stream

    async def run(self) -> None:
        """Carry it to its end. Raises ClusterError while the client has had no answer."""
        first = await self._reader.read(PIECE)
        if not first:
            return
        self._pod = await self._forwarder.dial(self._avoided)
        up = asyncio.create_task(self._up(first))
        down = asyncio.create_task(self._down())
        try:
            done, _ = await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
            if up in done and up.exception() is None and not up.result():
                await asyncio.wait({down})  # Nothing more can be sent; it may still answer.
            for task in (down, up):
                if task.done() and (error := task.exception()) is not None:
                    raise error
        finally:
            for task in (up, down):
                task.cancel()
            await asyncio.gather(up, down, return_exceptions=True)
            await self._pod.close()

    async def _up(self, data: bytes) -> bool:
        """From the client to the pod; whether the client has hung up (else the pod has)."""
        while data:
            marked = self._marker.feed(data) if self._marker else data
            async with self._turn:
                if not await self._send(marked):
                    return False
            data = await self._reader.read(PIECE)
        return True

    async def _send(self, data: bytes) -> bool:
        if self._sent is not None:
            self._sent += data
            if len(self._sent) > KEPT:
                self._sent = None
        try:
            await self._pod.write(data)
        except TunnelError:
            return self._sent is not None  # The other task hears why, and may send it again.
        return True

    async def _down(self) -> None:
        """From the pod to the client."""
        while True:
            try:
                data = await self._pod.read()
            except TunnelError as error:
                if self._sent is None:
                    return  # The client sees that the answer is not whole.
                if error.reached and not self._may_repeat():
                    raise
                await self._again()
                continue
            if not data:
                return
            self._sent = None
            self._writer.write(data)
            await self._writer.drain()

    def _may_repeat(self) -> bool:
        """Whether what was sent does no harm if it is sent a second time."""
        self._tries += 1
        return self._tries < TRIES and HARMLESS.fullmatch(self._sent or b"") is not None

    async def _again(self) -> None:
        """Find another pod, and send it what the first has not got."""
        broken = self._pod
        await broken.close()  # Whoever is sending to it stops.
        async with self._turn:
            self._pod = await self._forwarder.dial(self._avoided)
            if self._sent:
                try:
                    await self._pod.write(bytes(self._sent))
                except TunnelError:
                    pass  # The next read hears why.


def _unavailable(message: str) -> bytes:
    """The answer to a browser when no pod takes its request."""
    body = f"{message}\n".encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


async def listen(
    forwarder: PortForwarder, addresses: Sequence[str], port: int, certificate: Path
) -> list[asyncio.Server]:
    """Take connections at a port of these addresses. Raises PortTakenError or ProxyError."""
    context = _server_context(certificate)
    found: list[asyncio.Server] = []
    for address in addresses:
        sockets.check_port(address, port)
        try:
            found.append(
                await asyncio.start_server(
                    forwarder.serve, address, port, ssl=context, ssl_handshake_timeout=30
                )
            )
        except OSError as error:
            raise sockets.port_taken(port) from error
    return found


def _server_context(certificate: Path) -> ssl.SSLContext:
    """TLS as browsers expect it, with a key and its certificate chain in one file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate)
    return context
