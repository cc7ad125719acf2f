"""Connections to a port of a pod, through the API server's `portforward` subresource.

    TunnelDialer --open--> Tunnel (bytes in a WebSocket) --open_tls--> TlsTunnel (TLS inside it)

Each connection is a separate WebSocket that speaks `v4.channel.k8s.io`: the first byte of a
message is its channel, 0 for data both ways, 1 for one error message; the server begins each
channel with the port number, two bytes, little endian. The protocol cannot close one direction
only. docs/decisions/0019 compares the three protocols.

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

from lapwing.errors import ClusterError
from lapwing.kubernetes.api_errors import api_error, parse_status, unreachable
from lapwing.kubernetes.client import REQUEST_TIMEOUT_S

if TYPE_CHECKING:
    from lapwing.kubernetes.client import ApiClient

PROTOCOL = Subprotocol("v4.channel.k8s.io")
DATA, ERROR = 0, 1
CHUNK_BYTES = 1 << 16
PING_INTERVAL_S = 30.0
"""For proxies that close idle connections. An answer is not waited for: a kubelet gives none while
the pod does not read."""
SETTLE_TIME_S = 0.02
"""Seconds in which a refused port is reported: the kubelet is on the same machine as the pod."""
NOT_REACHED = re.compile(
    "refused|failed to dial|failed to connect|not found|does not exist|not running|no route",
    re.IGNORECASE,
)
"""What container runtimes (containerd, CRI-O, cri-dockerd) and kubelets report when a pod was not
reached, so that nothing of what was sent has arrived."""

_NO_LOG = logging.getLogger("lapwing.tunnel")
_NO_LOG.addHandler(logging.NullHandler())
_NO_LOG.propagate = False


class TunnelError(ClusterError):
    """A connection to a pod failed. `reached`: the pod may have got some of what was sent."""

    code = "tunnel"

    def __init__(self, message: str, *, reached: bool) -> None:
        """Keep whether the pod was reached."""
        super().__init__(message)
        self.reached = reached


class Stream(Protocol):
    """Bytes in both directions."""

    async def read(self) -> bytes:
        """Return what has arrived; empty at the end. Raises TunnelError."""

    async def write(self, data: bytes) -> None:
        """Send bytes. Raises TunnelError."""

    async def close(self) -> None:
        """Close the stream; does nothing a second time."""


class ChannelDecoder:
    """Splits messages of the WebSocket into channel and content."""

    def __init__(self) -> None:
        """Expect the port number on each channel."""
        self._port_bytes = {DATA: 2, ERROR: 2}

    def decode(self, message: bytes | str) -> tuple[int, bytes]:
        """Return the channel and the content without the port. Raises ValueError."""
        if not isinstance(message, bytes) or not message or message[0] not in self._port_bytes:
            raise ValueError(f"not a message of {PROTOCOL}: {message[:8]!r}")
        channel, body = message[0], message[1:]
        port = body[: self._port_bytes[channel]]
        self._port_bytes[channel] -= len(port)
        return channel, body[len(port) :]


class Tunnel:
    """One connection to a port of a pod."""

    def __init__(self, socket: ClientConnection, pod: str) -> None:
        """Speak over an open WebSocket."""
        self._socket, self._pod = socket, pod
        self._decoder = ChannelDecoder()
        self._answered = False
        self._early = b""

    async def settle(self) -> None:
        """Wait briefly, before anything is sent, for an error that the pod was not reached.

        Raises TunnelError.
        """
        try:
            async with asyncio.timeout(SETTLE_TIME_S):
                self._early = await self.read()
        except TimeoutError:
            pass

    async def read(self) -> bytes:
        """Return what the pod has sent; empty when it has closed the connection.

        Raises TunnelError, also if the pod closed the connection without an answer.
        """
        if self._early:
            early, self._early = self._early, b""
            return early
        while True:
            try:
                channel, body = self._decoder.decode(await self._socket.recv())
            except ConnectionClosed:
                if self._answered:
                    return b""
                raise TunnelError(
                    f"{self._pod} closed the connection before it answered.", reached=True
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
            for at in range(0, len(data), CHUNK_BYTES):
                await self._socket.send(b"\0" + data[at : at + CHUNK_BYTES])
        except ConnectionClosed as error:
            raise TunnelError(f"{self._pod} has closed the connection.", reached=True) from error

    async def close(self) -> None:
        """Close the connection."""
        await self._socket.close()


class TlsTunnel:
    """TLS to the pod inside a tunnel.

    The certificate is not verified: the API server already vouches for which pod this is, and such
    certificates are self-signed.
    """

    def __init__(self, tunnel: Tunnel) -> None:
        """Prepare TLS; `handshake` starts it."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        self._tunnel = tunnel
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname="localhost")

    async def handshake(self) -> None:
        """Negotiate TLS. Raises TunnelError, or ssl.SSLError if the pod does not speak TLS."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._exchange()
            else:
                return await self._flush()

    async def read(self) -> bytes:
        """Return what the pod has sent; empty at the end. Raises TunnelError."""
        while True:
            try:
                return self._tls.read(CHUNK_BYTES)
            except ssl.SSLWantReadError:
                await self._exchange()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            except ssl.SSLError as error:
                raise TunnelError(f"TLS to the pod failed: {error.reason}", reached=True) from error

    async def write(self, data: bytes) -> None:
        """Send bytes to the pod. Raises TunnelError."""
        rest = memoryview(data)
        while rest:
            rest = rest[self._tls.write(rest) :]
            await self._flush()

    async def close(self) -> None:
        """Close the connection."""
        await self._tunnel.close()

    @property
    def certificate(self) -> bytes | None:
        """The certificate of the pod, in DER."""
        return self._tls.getpeercert(binary_form=True)

    async def _exchange(self) -> None:
        await self._flush()
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
        """Use the cluster and the credentials of a client."""
        self._api = api
        self._login: tuple[ssl.SSLContext, Mapping[str, str]] | None = None
        self._lock = asyncio.Lock()

    async def open(self, namespace: str, pod: str, port: int) -> Tunnel:
        """Connect to a port of a pod.

        Raises TunnelError if there is no such pod or node, or ClusterError.
        """
        for attempt in (1, 2):
            login = await self._credentials()
            try:
                return Tunnel(await self._connect(namespace, pod, port, login), pod)
            except InvalidStatus as error:
                code = error.response.status_code
                if code != 401 or attempt == 2 or not self._api.credentials.invalidate():
                    raise _refused(code, error.response.body, pod) from error
                self._login = None
            except InvalidHandshake as error:
                raise TunnelError(f"{pod}: {error}", reached=False) from error
            except (OSError, TimeoutError) as error:
                raise unreachable(self._api.access, error) from error
        raise AssertionError("unreachable")

    async def open_tls(self, namespace: str, pod: str, port: int) -> TlsTunnel:
        """Connect and negotiate TLS. Raises as `open`, and ssl.SSLError."""
        made = TlsTunnel(await self.open(namespace, pod, port))
        try:
            await made.handshake()
        except BaseException:
            await made.close()
            raise
        return made

    async def _credentials(self) -> tuple[ssl.SSLContext, Mapping[str, str]]:
        async with self._lock:
            if self._login is None:
                found = self._api.credentials
                self._login = await asyncio.to_thread(
                    lambda: (found.ssl_context(), found.headers())
                )
            return self._login

    async def _connect(
        self, namespace: str, pod: str, port: int, login: tuple[ssl.SSLContext, Mapping[str, str]]
    ) -> ClientConnection:
        access = self._api.access
        context, headers = login
        tls: dict[str, Any] = {}
        if urlsplit(access.server).scheme == "https":
            tls["ssl"] = context
            if access.server_name:
                tls["server_hostname"] = access.server_name
        base = re.sub("^http", "ws", access.server)
        return await connect(
            f"{base}/api/v1/namespaces/{namespace}/pods/{pod}/portforward?ports={port}",
            subprotocols=[PROTOCOL],
            additional_headers=headers,
            compression=None,
            proxy=access.proxy,
            open_timeout=REQUEST_TIMEOUT_S,
            ping_interval=PING_INTERVAL_S,
            ping_timeout=None,
            close_timeout=2,
            max_size=None,
            logger=_NO_LOG,
            **tls,
        )


def _refused(code: int, body: bytes | bytearray | None, pod: str) -> ClusterError:
    """Build the error for a connection that the API server refuses."""
    status = parse_status((body or b"").decode(errors="replace"))
    if code in (401, 403):
        return api_error(code, status, pod)
    message = status.get("message") or f"status {code}"
    return TunnelError(f"{pod}: {_short(str(message))}", reached=False)


def _short(text: str) -> str:
    """Return an error of a kubelet without the identifiers that it begins with."""
    return re.sub(r"^error forwarding port \d+ to pod \S+, uid [^:]*: ", "", text.strip())[:300]
