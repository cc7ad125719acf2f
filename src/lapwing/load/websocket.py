"""A WebSocket of the load client: the protocol of `websockets` on a `Connection`."""

from __future__ import annotations

import contextlib

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.uri import parse_uri

from lapwing.load.connection import ClosedEarly, Connection, RequestFailed


class Closed(Exception):
    """The server has closed the WebSocket with a close frame."""


class WebSocket:
    """A WebSocket that sends and receives text messages."""

    def __init__(self, connection: Connection, path: str) -> None:
        self._connection = connection
        self._protocol = ClientProtocol(parse_uri(f"ws://{connection.target.host}{path}"))
        self._events: list[Request | Response | Frame] = []

    async def connect(self) -> Response:
        """Send the handshake and return the response. Raises RequestFailed."""
        self._protocol.send_request(self._protocol.connect())
        await self._flush()
        response = await self._next()
        assert isinstance(response, Response)
        return response

    def check(self) -> None:
        """Raise RequestFailed if the handshake was not accepted."""
        error = self._protocol.handshake_exc
        if isinstance(error, InvalidStatus):
            raise RequestFailed(f"status {error.response.status_code} instead of 101")
        if error is not None:
            raise RequestFailed(f"invalid WebSocket handshake: {error}")

    async def send(self, text: str) -> None:
        """Send a message, unless the server is closing. Raises ClosedEarly."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_text(text.encode())
            await self._flush()

    async def receive(self) -> str:
        """Wait for a message. Raises Closed; RequestFailed if there was no close frame."""
        message = b""
        while True:
            frame = await self._next()
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.CLOSE:
                raise Closed
            if frame.opcode in (Opcode.TEXT, Opcode.CONT):
                message += frame.data
                if frame.fin:
                    return message.decode()

    async def close(self) -> None:
        """Send a close frame and wait for that of the server. Raises RequestFailed."""
        self._protocol.send_close(1000)
        await self._flush()
        with contextlib.suppress(Closed):
            while True:
                await self.receive()

    async def _next(self) -> Request | Response | Frame:
        """Wait for the response or the next frame; pings and close frames are replied to."""
        while not self._events:
            if (error := self._protocol.parser_exc) and not isinstance(error, EOFError):
                raise RequestFailed(f"invalid WebSocket frame: {error}")
            data = await self._connection.receive()
            if data:
                self._protocol.receive_data(data)
            else:
                self._protocol.receive_eof()
            with contextlib.suppress(ClosedEarly):  # Reading reports the failure.
                await self._flush()
            self._events += self._protocol.events_received()
            if not self._events:
                self.check()
                if not data:
                    raise RequestFailed("closed without a close frame")
        return self._events.pop(0)

    async def _flush(self) -> None:
        await self._connection.write(b"".join(self._protocol.data_to_send()))
