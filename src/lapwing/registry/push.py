"""Writing one blob to a registry: asked for, mounted, sent whole, or sent in parts and resumed.

First the registry is asked whether it has the blob; then whether it takes it from another of its
repositories; only then bytes are sent. A short blob goes as one request. A longer one goes as
parts, because only those can be resumed, and proxies in front of registries bound the length of a
body. When a connection dies, the registry is asked how far it got and the rest is sent from there.
Where it gives no answer to that, a new upload is begun: docker-registry 2.8 gives up an upload when
a part breaks on its way in, and keeps it when a part never came.

Source: the OCI distribution specification 1.1, "Pushing blobs".
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from typing import Literal

from lapwing.errors import ImageMissingError, RegistryError
from lapwing.registry.answers import Interrupted, Short
from lapwing.registry.manifest import Descriptor
from lapwing.registry.pull import Content
from lapwing.registry.repository import Repository, same
from lapwing.registry.streams import Piece
from lapwing.registry.tally import Tally, verified

WHOLE = 4 * 1024 * 1024
"""Bytes of a blob that is sent as one request, which cannot be resumed."""
PART = 256 * 1024 * 1024
"""Bytes of one request at most, at first."""
SMALLER_PART = 32 * 1024 * 1024
"""Bytes of one request after a 413 (the body is too long)."""
CANCEL_TIME = 2.0
"""Seconds that giving up an upload may take; registries remove those that are left, too."""

BlobOutcome = Literal["copied", "mounted", "present"]
Sent = Callable[[int], None]
"""Told how many more bytes are through; fewer than none when some have to be sent again."""


@dataclass(slots=True)
class _Upload:
    """An upload that the registry has begun: where it is, and how many bytes of it are there."""

    location: str
    least: int = 0
    """Bytes that a part has to have at least, if the registry says so."""
    offset: int = 0
    resumed: bool = False
    lost: bool = False
    """Whether the registry forgot it, or holds something else than was sent."""

    @property
    def mendable(self) -> tuple[int, ...]:
        """Statuses after which another way is tried. A registry may still have been writing what
        came on a dead connection when it said how far it was: then the digest is wrong (400)."""
        return (404, 413, 400) if self.resumed else (404, 413)


class Pusher:
    """Pushes blobs to one repository. `source` is where mounts come from, on the same registry."""

    def __init__(
        self, target: Repository, *, mount_from: str | None = None, part: int | None = None
    ) -> None:
        self._target = target
        self._mount_from = mount_from
        self._part = part or PART

    async def push(
        self, blob: Descriptor, content: Content, sent: Sent, *, where: str
    ) -> BlobOutcome:
        """Bring a blob to the repository if it is not there. `where` names the source in errors.

        Raises IntegrityError if the content is not what the descriptor says: the registry then
        has no blob of that name from us.
        """
        if await self.has(blob):
            return "present"
        tally = Tally(blob.digest, blob.size, where)
        if blob.size == 0:
            tally.add(b"")
        upload = await self._begin(blob)
        if upload is None:
            return "mounted"
        try:
            await self._deliver(upload, tally, content, sent)
        except BaseException:
            await self._cancel(upload)
            raise
        return "copied"

    async def has(self, blob: Descriptor) -> bool:
        """Whether the repository has a blob, with the right size if the registry says it."""
        answer = await self._ask("HEAD", self._target.path(f"blobs/{blob.digest}"), 200, 404)
        length = answer.headers.get("content-length")
        return answer.status == 200 and (length is None or length == str(blob.size))

    async def _begin(self, blob: Descriptor) -> _Upload | None:
        """Begin an upload; None if the registry mounted the blob instead."""
        path = self._target.path("blobs/uploads/")
        if self._mount_from:
            path += f"?mount={blob.digest}&from={self._mount_from}"
        answer = await self._ask("POST", path, 201, 202)
        if answer.status == 201:
            return None
        least = answer.headers.get("oci-chunk-min-length", "")
        return _Upload(
            self._location(answer.headers.get("location", "")),
            int(least) if least.isdecimal() else 0,
        )

    async def _deliver(self, upload: _Upload, tally: Tally, content: Content, sent: Sent) -> None:
        """Send what is missing until the registry has taken the whole blob."""
        registry = self._target.registry
        failed, known, counted = 0, 0, 0

        def count(more: int) -> None:
            nonlocal counted
            counted += more
            sent(more)

        while True:
            try:
                await self._send(upload, tally, content, count)
                return
            except Interrupted as interrupted:
                failed += 1
                await registry.wait(failed, interrupted)
                taken = interrupted.taken
            if taken and await self._resume(upload, tally):
                return
            count(upload.offset - counted)
            if upload.offset > known:
                failed, known = 0, upload.offset

    async def _send(self, upload: _Upload, tally: Tally, content: Content, sent: Sent) -> None:
        begin = tally.rewind(upload.offset)
        stream = verified(content.pieces(tally, begin), tally)
        async with contextlib.aclosing(_Cut(stream, upload.offset - begin, sent)) as pieces:
            if upload.offset == 0 and tally.size <= min(self._part, WHOLE):
                await self._close(upload, tally, pieces.next(tally.size), tally.size)
                return
            while upload.offset < tally.size:
                length = min(max(self._part, upload.least), tally.size - upload.offset)
                await self._patch(upload, pieces.next(length), length)
        await self._close(upload, tally, b"", 0)

    async def _patch(self, upload: _Upload, body: AsyncIterator[Piece], length: int) -> None:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(length),
            "Content-Range": f"{upload.offset}-{upload.offset + length - 1}",
        }
        async with self._target.registry.exchange(
            "PATCH",
            upload.location,
            scopes=self._target.scopes,
            headers=headers,
            content=body,
            good=(202, *upload.mendable, 416),
        ) as answer:
            if answer.status != 202:
                raise self._unfit(upload, answer.status, length)
            upload.location = self._location(answer.headers.get("location", upload.location))
            upload.offset += length

    async def _close(
        self, upload: _Upload, tally: Tally, body: AsyncIterator[Piece] | bytes, length: int
    ) -> None:
        joint = "&" if "?" in upload.location else "?"
        async with self._target.registry.exchange(
            "PUT",
            f"{upload.location}{joint}digest={tally.digest}",
            scopes=self._target.scopes,
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(length),
            },
            content=body,
            good=(201, *upload.mendable),
        ) as answer:
            if answer.status != 201:
                raise self._unfit(upload, answer.status, length)
            told = answer.headers.get("docker-content-digest")
            if told:
                same(told, tally.digest, self._target, f"the blob {tally.digest}")

    async def _resume(self, upload: _Upload, tally: Tally) -> bool:
        """Find out how far an upload is; whether the blob is there by now after all."""
        blob = Descriptor(digest=tally.digest, size=tally.size)
        if await self.has(blob):
            return True
        try:
            answer = None if upload.lost else await self._ask("GET", upload.location, 204, 200)
        except RegistryError:
            answer = None
        if answer is None:
            begun = await self._begin(blob)
            if begun is None:
                return True
            upload.location, upload.offset = begun.location, 0
            upload.resumed = upload.lost = False
            return False
        upload.resumed = True
        told = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("range", ""))
        upload.location = self._location(answer.headers.get("location", upload.location))
        last = int(told[1]) if told else 0
        # An empty upload is told as 0-0, as is one with a single byte.
        upload.offset = last + 1 if 0 < last < tally.size else 0
        return False

    def _unfit(self, upload: _Upload, status: int, length: int) -> Exception:
        """After 413 smaller parts are tried, after 416 the registry is asked where it is, after
        400 and 404 a new upload is begun."""
        host = self._target.registry.host
        if status in (400, 404):
            upload.lost = True
            return Interrupted(
                RegistryError(
                    f"{host} loses uploads before they are whole (it answers {status}).",
                    hint="Several servers behind one name have to share their storage.",
                )
            )
        if status == 413 and (self._part <= SMALLER_PART or length <= SMALLER_PART):
            return RegistryError(
                f"{host} does not take {length} bytes in one request.",
                hint="A proxy in front of it bounds the length of a body; raise that bound.",
            )
        if status == 413:
            self._part = SMALLER_PART
        return Interrupted(RegistryError(f"{host} does not take an upload in parts."), after=0.0)

    async def _cancel(self, upload: _Upload) -> None:
        """Tell the registry that an upload is given up, if it listens."""
        with contextlib.suppress(RegistryError, Interrupted, TimeoutError):
            async with (
                asyncio.timeout(CANCEL_TIME),
                self._target.registry.exchange(
                    "DELETE", upload.location, scopes=self._target.scopes, good=(202, 204, 200)
                ),
            ):
                pass

    def _location(self, location: str) -> str:
        if not location:
            raise RegistryError(f"{self._target} begins an upload and does not say where.")
        return self._target.registry.url(location)

    async def _ask(self, method: str, path: str, *good: int) -> Short:
        try:
            return await self._target.registry.ask(
                method, path, scopes=self._target.scopes, good=good
            )
        except ImageMissingError as error:
            raise RegistryError(
                f"{self._target} cannot be pushed to ({error.message.rstrip('.')}).",
                hint="Some registries want the repository, or its project, made first.",
            ) from error


class _Cut:
    """A stream of pieces, given out in parts of a wanted length, after leaving out `skip` bytes."""

    def __init__(self, stream: AsyncGenerator[Piece, None], skip: int, sent: Sent) -> None:
        self._stream = stream
        self._skip = skip
        self._sent = sent
        self._rest: Piece = b""

    async def next(self, length: int) -> AsyncIterator[Piece]:
        """The next `length` bytes."""
        while length > 0:
            piece = self._rest or await anext(self._stream)
            self._rest = b""
            if self._skip:
                dropped = min(self._skip, len(piece))
                self._skip -= dropped
                piece = piece[dropped:]
                if not piece:
                    continue
            if len(piece) > length:
                piece, self._rest = piece[:length], piece[length:]
            length -= len(piece)
            yield piece
            self._sent(len(piece))

    async def aclose(self) -> None:
        """End the stream, and with it the connection that it reads from."""
        await self._stream.aclose()
