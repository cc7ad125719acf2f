"""Reading one blob from a registry, from any offset, as a stream that survives.

A connection that dies is made again with `Range` from the byte after the last one, as often as
patience lasts; each byte that arrives starts patience anew. What the registry says of size and
range is compared with what is wanted before a byte is given on.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncGenerator
from typing import Protocol

from lapwing.errors import ImageMissingError
from lapwing.registry.answers import Answer, Interrupted
from lapwing.registry.registry import Registry
from lapwing.registry.repository import Repository
from lapwing.registry.streams import Piece
from lapwing.registry.tally import Tally


class Content(Protocol):
    """Where the bytes of a blob come from: a registry, or memory."""

    def pieces(self, tally: Tally, offset: int) -> AsyncGenerator[Piece, None]:
        """The bytes from an offset on, not verified yet."""
        ...


class Pulled:
    """The content of a blob in a repository."""

    def __init__(self, source: Repository) -> None:
        self._source = source

    async def pieces(self, tally: Tally, offset: int) -> AsyncGenerator[Piece, None]:
        """The bytes from `offset` to the end.

        Raises IntegrityError if the registry says that there are more or fewer than the manifest
        does, RegistryError if it does not send them.
        """
        registry: Registry = self._source.registry
        failed = 0
        while offset < tally.size:
            try:
                async with contextlib.aclosing(self._once(tally, offset)) as stream:
                    async for piece in stream:
                        yield piece
                        offset += len(piece)
                        failed = 0
                if offset < tally.size:
                    raise tally.wrong(f"ends after {offset} of {tally.size} bytes")
            except Interrupted as interrupted:
                failed += 1
                await registry.wait(failed, interrupted)

    async def _once(self, tally: Tally, offset: int) -> AsyncGenerator[Piece, None]:
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        try:
            async with self._source.registry.exchange(
                "GET",
                self._source.path(f"blobs/{tally.digest}"),
                scopes=self._source.scopes,
                headers={"Accept-Encoding": "identity", **headers},
                good=(200, 206, 416),
            ) as answer:
                skip = _skipped(answer, tally, offset)
                async for piece in answer.pieces():
                    if skip >= len(piece):
                        skip -= len(piece)
                        continue
                    yield piece[skip:] if skip else piece
                    skip = 0
        except ImageMissingError as error:
            raise ImageMissingError(
                f"{self._source} does not have blob {tally.digest}, which its manifest names.",
                hint="The image there is incomplete; push it again.",
            ) from error


def _skipped(answer: Answer, tally: Tally, offset: int) -> int:
    """Bytes to leave out at the beginning of an answer: a registry may ignore `Range`. Raises
    IntegrityError if its sizes are not what the manifest says."""
    if answer.status == 416:
        raise tally.wrong(f"ends before byte {offset} of {tally.size}")
    begin = offset if answer.status == 206 else 0
    if answer.status == 206:
        told = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("content-range", ""))
        if told is None or int(told[1]) != offset:
            raise tally.wrong("is sent from another place than was asked for")
        if told[2] not in ("*", str(tally.size)):
            raise tally.wrong(f"has {told[2]} bytes, and its manifest says {tally.size}")
    if answer.length is not None and answer.length != tally.size - begin:
        raise tally.wrong(f"has {answer.length + begin} bytes, and its manifest says {tally.size}")
    return offset - begin


class Held:
    """Content that is in memory already: a config, or a chart."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def pieces(self, tally: Tally, offset: int) -> AsyncGenerator[Piece, None]:
        """The bytes from `offset` to the end."""
        if offset < len(self._data):
            yield self._data[offset:]
