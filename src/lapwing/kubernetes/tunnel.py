"""Connections to a port of a pod, through the API server's `portforward` subresource.

    TunnelDialer --open--> Tunnel (bytes, in a WebSocket) --secured--> Secured (TLS inside it)

Each connection is a WebSocket of its own that speaks `v4.channel.k8s.io`: the first byte of a
message names its channel, 0 for data both ways, 1 for one error in words; the server begins each
channel with the number of the port, two bytes, the lower first. The protocol has no way to end one
direction only. docs/decisions/0019 says why this one of the three protocols.

Sources: Kubernetes, k8s.io/kubelet `pkg/cri/streaming/portforward/websocket.go`, which kubelets and
container runtimes serve; KEP-4006.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from lapwing.errors import ClusterError, ClusterUnreachableError
from lapwing.kubernetes.client import TIMEOUT, api_error

if TYPE_CHECKING:
    from lapwing.kubernetes.client import ApiClient

PROTOCOL = Subprotocol("v4.channel.k8s.io")
DATA, ERROR = 0, 1
PIECE = 1 << 16
"""Bytes that are read or sent at a time."""
PING = 30.0
"""Seconds between signs of life, for proxies that hang up on silence. An answer is not waited for:
a kubelet gives none while the pod does not read."""
SETTLE = 0.02
"""Seconds in which a port that nobody listens on is told: the kubelet is on the same machine."""
NOT_REACHED = re.compile(
    "refused|failed to dial|failed to connect|not found|does not exist|not running|no route",
    re.IGNORECASE,
)
"""What container runtimes (containerd, CRI-O, cri-dockerd) and kubelets say when a pod was not
reached, so that nothing of what was sent has arrived."""

_QUIET = logging.getLogger("lapwing.tunnel")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


class TunnelError(ClusterError):
    """A connection to a pod cannot be made, or broke. `reached` says whether the pod may have got
    something of what was sent."""

    code = "tunnel"

    def __init__(self, message: str, *, reached: bool) -> None:
        super().__init__(message)
        self.reached = reached


class Stream(Protocol):
    """Bytes both ways."""

    async def read(self) -> bytes:
        """What has come; empty at the end. Raises TunnelError."""

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises TunnelError."""

    async def close(self) -> None:
        """Hang up; a second time does nothing."""


class Channels:
    """Takes messages of the WebSocket apart. Pure."""

    def __init__(self) -> None:
        self._port = {DATA: 2, ERROR: 2}

    def take(self, message: bytes | str) -> tuple[int, bytes]:
        """The channel of a message, and what it brings; the port at its beginning is left out.

        Raises ValueError for what the protocol does not know.
        """
        if isinstance(message, str) or not message or message[0] not in self._port:
            raise ValueError("not a message of a port-forward")
        channel, body = message[0], message[1:]
        skipped = min(self._port[channel], len(body))
        self._port[channel] -= skipped
        return channel, body[skipped:]


class Tunnel:
    """One connection. `read` and `write` may be used by two tasks at the same time."""

    def __init__(self, socket: ClientConnection, pod: str) -> None:
        self._socket, self._pod = socket, pod
        self._channels = Channels()
        self._answered = False
        self._early = b""

    async def settle(self) -> None:
        """Wait for a moment if the pod is not reached, before anything is sent. Raises
        TunnelError."""
        try:
            async with asyncio.timeout(SETTLE):
                self._early = await self.read()
        except TimeoutError:
            pass

    async def read(self) -> bytes:
        """What the pod has sent; empty when it has hung up. Raises TunnelError, also if it has hung
        up without a word."""
        if self._early:
            early, self._early = self._early, b""
            return early
        while True:
            try:
                channel, body = self._channels.take(await self._socket.recv())
            except ConnectionClosed:
                if self._answered:
                    return b""
                raise TunnelError(
                    f"{self._pod} hung up before it answered.", reached=True
                ) from None
            except ValueError as error:
                raise TunnelError(f"{self._pod}: {error}", reached=True) from error
            if channel == ERROR and body:
                text = body.decode(errors="replace")
                reached = self._answered or not NOT_REACHED.search(text)
                raise TunnelError(f"{self._pod}: {_short(text)}", reached=reached)
            if channel == DATA and body:
                self._answered = True
                return body

    async def write(self, data: bytes) -> None:
        """Send bytes to the pod. Raises TunnelError."""
        try:
            for at in range(0, len(data), PIECE):
                await self._socket.send(b"\0" + data[at : at + PIECE])
        except ConnectionClosed as error:
            raise TunnelError(f"{self._pod} has hung up.", reached=True) from error

    async def close(self) -> None:
        """Hang up."""
        await self._socket.close()


class Secured:
    """TLS to the pod inside a tunnel. The certificate is not asked who it is: that this is the pod
    we mean, the API server vouches for, and such certificates are signed by themselves."""

    def __init__(self, tunnel: Tunnel) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        self._tunnel = tunnel
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    async def start(self) -> None:
        """Agree on keys. Raises TunnelError, or ssl.SSLError where no TLS is spoken."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            else:
                return await self._flush()

    async def read(self) -> bytes:
        """What the pod has sent; empty when it has hung up. Raises TunnelError."""
        while True:
            try:
                return self._tls.read(PIECE)
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise TunnelError(f"TLS to the pod broke: {error.reason}", reached=True) from error

    async def write(self, data: bytes) -> None:
        """Send bytes to the pod. Raises TunnelError."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]
            await self._flush()

    async def close(self) -> None:
        """Hang up."""
        await self._tunnel.close()

    @property
    def certificate(self) -> bytes | None:
        """What the pod shows, in DER."""
        return self._tls.getpeercert(binary_form=True)

    async def _fill(self) -> None:
        data = await self._tunnel.read()
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    async def _flush(self) -> None:
        data = self._out.read()
        if data:
            await self._tunnel.write(data)


class TunnelDialer:
    """Opens tunnels with the credentials of an `ApiClient`; renews them after a 401."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._login: tuple[ssl.SSLContext, Mapping[str, str]] | None = None
        self._busy = asyncio.Lock()

    async def open(self, namespace: str, pod: str, port: int) -> Tunnel:
        """Connect to a port of a pod. Raises TunnelError if there is no such pod or node, or
        ClusterError and its kin."""
        for attempt in (1, 2):
            used = await self._credentials()
            try:
                return Tunnel(await self._connect(namespace, pod, port, used), pod)
            except InvalidStatus as error:
                code = error.response.status_code
                if code != 401 or attempt == 2 or not self._api.login.forget():
                    raise _refused(code, error.response.body, pod) from error
                self._login = None
            except InvalidHandshake as error:
                raise TunnelError(f"{pod}: {error}", reached=False) from error
            except (OSError, TimeoutError) as error:
                access = self._api.access
                raise ClusterUnreachableError(
                    f"The cluster of context {access.context!r} does not answer at "
                    f"{access.server} ({type(error).__name__})."
                ) from error
        raise AssertionError("unreachable")

    async def secured(self, namespace: str, pod: str, port: int) -> Secured:
        """Connect, and agree on TLS. Raises as `open`, and ssl.SSLError."""
        made = Secured(await self.open(namespace, pod, port))
        try:
            await made.start()
        except BaseException:
            await made.close()
            raise
        return made

    async def _credentials(self) -> tuple[ssl.SSLContext, Mapping[str, str]]:
        async with self._busy:
            if self._login is None:
                login = self._api.login
                self._login = await asyncio.to_thread(lambda: (login.context(), login.headers()))
            return self._login

    async def _connect(
        self, namespace: str, pod: str, port: int, login: tuple[ssl.SSLContext, Mapping[str, str]]
    ) -> ClientConnection:
        access = self._api.access
        context, headers = login
        more: dict[str, Any] = {}
        if urlsplit(access.server).scheme == "https":
            more["ssl"] = context
            if access.server_name:
                more["server_hostname"] = access.server_name
        base = re.sub("^http", "ws", access.server)
        return await connect(
            f"{base}/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}",
            subprotocols=[PROTOCOL],
            additional_headers=headers,
            compression=None,
            proxy=access.proxy,
            open_timeout=TIMEOUT,
            ping_interval=PING,
            ping_timeout=None,
            close_timeout=2,
            max_size=None,
            logger=_QUIET,
            **more,
        )


def _refused(code: int, body: bytes | bytearray | None, pod: str) -> ClusterError:
    """The error for a connection that the API server does not make."""
    import json

    text = (body or b"").decode(errors="replace")
    try:
        status = json.loads(text)
    except ValueError:
        status = {"message": text.strip()[:300]} if text.strip() else {}
    if not isinstance(status, dict):
        status = {}
    if code in (401, 403):
        return api_error(code, status, pod)
    message = status.get("message") or f"status {code}"
    return TunnelError(f"{pod}: {_short(str(message))}", reached=False)


def _short(text: str) -> str:
    """An error of a kubelet without the identities that it begins with."""
    return re.sub(r"^error forwarding port \d+ to pod \S+, uid [^:]*: ", "", text.strip())[:300]
