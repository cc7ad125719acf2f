"""Splitting the stream of a blob into the chunks of its upload, each the body of one request."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable

from lapwing.registry.connection import Bytes

OnSent = Callable[[int], None]
"""Called with how many more bytes were sent; negative when some have to be sent again."""


class Splitter:
    """Splits a stream into chunks of a given length, after skipping `skip` bytes."""

    def __init__(self, stream: AsyncGenerator[Bytes, None], skip: int, on_sent: OnSent) -> None:
        self._stream = stream
        self._skip = skip
        self._on_sent = on_sent
        self._rest: Bytes = b""

    async def next(self, length: int) -> AsyncIterator[Bytes]:
        """Yield the next `length` bytes."""
        while length > 0:
            data = self._rest or await anext(self._stream)
            self._rest = b""
            if self._skip:
                dropped = min(self._skip, len(data))
                self._skip -= dropped
                data = data[dropped:]
                if not data:
                    continue
            if len(data) > length:
                data, self._rest = data[:length], data[length:]
            length -= len(data)
            yield data
            self._on_sent(len(data))

    async def aclose(self) -> None:
        """End the stream, and with it the connection that it reads from."""
        await self._stream.aclose()
