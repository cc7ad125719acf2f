"""Pulling a blob: from any offset, as a verified stream that survives broken connections.

A connection that breaks is made again with `Range` from the byte after the last one, as long as
retries are left; each byte that arrives resets them. A blob is never in memory, so it is verified
while it streams: the last part is held back until the digest of the whole is known to be correct,
and a registry that checks nothing still never gets a complete blob that is wrong. Checkpoints
(copies of the running hash at some offsets) let a push continue from where the destination is,
without reading the blob from its beginning.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import deque
from collections.abc import AsyncGenerator
from typing import Protocol

from lapwing.errors import ImageMissingError, IntegrityError
from lapwing.registry.connection import Bytes
from lapwing.registry.registry import Request
from lapwing.registry.repository import Repository
from lapwing.registry.response import Response, TransientFailure

CHECKPOINT_BYTES = 4 * 1024 * 1024
"""Bytes between two checkpoints."""
MAX_CHECKPOINTS = 64
"""The newest checkpoints are kept, and the beginning."""


class BlobVerifier:
    """The running digest of a blob of `size` bytes.

    `where` names the source in errors, `remedy` is what to do if the blob is damaged.
    """

    def __init__(self, digest: str, size: int, where: str, remedy: str) -> None:
        self.digest = digest
        self.size = size
        self.where = where
        self.remedy = remedy
        self.offset = 0
        self._begin = hashlib.new(digest.partition(":")[0])
        self._hash = self._begin.copy()
        self._checkpoints: deque[tuple[int, hashlib._Hash]] = deque(maxlen=MAX_CHECKPOINTS)
        self._last_checkpoint = 0

    def update(self, data: Bytes) -> None:
        """Add bytes.

        Raises IntegrityError as soon as there are too many, or the last one is there and the digest
        differs.
        """
        self._hash.update(data)
        self.offset += len(data)
        if self.offset > self.size:
            raise self.error(f"is longer than the {self.size} bytes in its manifest")
        if self.offset - self._last_checkpoint >= CHECKPOINT_BYTES:
            self._last_checkpoint = self.offset
            self._checkpoints.append((self.offset, self._hash.copy()))
        if self.offset == self.size and self.current != self.digest:
            raise self.error(f"has the digest {self.current}")

    @property
    def current(self) -> str:
        """The digest of the bytes so far."""
        return f"{self.digest.partition(':')[0]}:{self._hash.hexdigest()}"

    def check_complete(self) -> None:
        """Raise IntegrityError if bytes are missing at the end of the stream."""
        if self.size == 0:
            self.update(b"")
        if self.offset != self.size:
            raise self.error(f"ends after {self.offset} of {self.size} bytes")

    def rewind(self, offset: int) -> int:
        """Go back to the newest checkpoint that is not after `offset`; return its offset."""
        while self._checkpoints and self._checkpoints[-1][0] > offset:
            self._checkpoints.pop()
        position, state = self._checkpoints[-1] if self._checkpoints else (0, self._begin)
        self.offset = self._last_checkpoint = position
        self._hash = state.copy()
        return position

    def error(self, why: str) -> IntegrityError:
        """Return the error for content that differs from its descriptor."""
        return IntegrityError(
            f"Blob {self.digest} of {self.where} {why}.",
            hint=f"{self.remedy} Nothing was tagged.",
        )


async def verified(
    stream: AsyncGenerator[Bytes, None], verifier: BlobVerifier
) -> AsyncGenerator[Bytes, None]:
    """Yield the same parts, each verified before: so the last part of a wrong blob is not.

    Raises IntegrityError.
    """
    async with contextlib.aclosing(stream):
        async for data in stream:
            verifier.update(data)
            yield data
    verifier.check_complete()


class BlobSource(Protocol):
    """Where the bytes of a blob come from: a registry, memory, or a file."""

    def read(self, verifier: BlobVerifier, offset: int) -> AsyncGenerator[Bytes, None]:
        """Stream the bytes from an offset on, not verified yet."""
        ...

    def remedy(self, digest: str) -> str:
        """Return which file or registry has a blob that is damaged, and what to do."""
        ...


class MemoryBlob:
    """A blob in memory: a config, or a chart."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    async def read(self, verifier: BlobVerifier, offset: int) -> AsyncGenerator[Bytes, None]:
        """Stream the bytes from `offset` to the end."""
        if offset < len(self.content):
            yield self.content[offset:]

    def remedy(self, digest: str) -> str:
        """Return what to do: it was made by this command."""
        return "It was made on this machine: run the command again."


class RemoteBlob:
    """A blob in a repository."""

    def __init__(self, source: Repository) -> None:
        self._source = source

    def remedy(self, digest: str) -> str:
        """Return the cause and the next step for a damaged blob: the registry, or a proxy."""
        return (
            f"The blob in {self._source.registry.host} is damaged, or a proxy changed it. Push the "
            "image again, from the machine that built it."
        )

    async def read(self, verifier: BlobVerifier, offset: int) -> AsyncGenerator[Bytes, None]:
        """Stream the bytes from `offset` to the end.

        Raises IntegrityError if the registry reports another size than the manifest, RegistryError
        if it does not send the bytes.
        """
        failed = 0
        while offset < verifier.size:
            try:
                async with contextlib.aclosing(self._read_once(verifier, offset)) as stream:
                    async for data in stream:
                        yield data
                        offset += len(data)
                        failed = 0
                if offset < verifier.size:
                    raise verifier.error(f"ends after {offset} of {verifier.size} bytes")
            except TransientFailure as failure:
                failed += 1
                await self._source.registry.wait(failed, failure)

    async def _read_once(self, verifier: BlobVerifier, offset: int) -> AsyncGenerator[Bytes, None]:
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        path = self._source.path(f"blobs/{verifier.digest}")
        try:
            async with self._source.exchange(
                Request("GET", path, headers), 200, 206, 416
            ) as response:
                skip = _bytes_to_skip(response, verifier, offset)
                async for data in response.stream():
                    if skip >= len(data):
                        skip -= len(data)
                        continue
                    yield data[skip:] if skip else data
                    skip = 0
        except ImageMissingError as error:
            raise ImageMissingError(
                f"{self._source} lacks blob {verifier.digest} of a manifest.",
                hint="The image there is incomplete; push it again.",
            ) from error


def _bytes_to_skip(response: Response, verifier: BlobVerifier, offset: int) -> int:
    """Return the bytes to skip at the beginning of a response: a registry may ignore `Range`.

    Raises IntegrityError if its sizes differ from the manifest's.
    """
    if response.status == 416:
        raise verifier.error(f"ends before byte {offset} of {verifier.size}")
    begin = offset if response.status == 206 else 0
    if response.status == 206:
        content_range = response.headers.get("content-range", "")
        sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range)
        if sent is None or int(sent[1]) != offset:
            raise verifier.error(f"was sent from another offset than {offset}")
        if sent[2] not in ("*", str(verifier.size)):
            raise verifier.error(f"has {sent[2]} bytes; its manifest says {verifier.size}")
    if response.length is not None and response.length != verifier.size - begin:
        length = response.length + begin
        raise verifier.error(f"has {length} bytes; its manifest says {verifier.size}")
    return offset - begin
