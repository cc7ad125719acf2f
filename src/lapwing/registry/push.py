"""Pushing a blob: found, mounted, sent whole, or sent in chunks and resumed.

First the registry is asked whether it has the blob; then whether it mounts it from another of its
repositories, that of the source or one that this command pushed it to; only then bytes are sent. A
small blob is sent as one request (monolithic). A larger one is sent in chunks, because only those
can be resumed, and proxies in front of registries limit the size of a body. When a connection
breaks, the registry reports how much it has and the rest is sent from there. If it does not, a new
upload begins: docker-registry 2.8 drops an upload when the connection breaks inside a chunk, and
keeps it when it breaks before one.

An artifact is pushed as a copy is: its blobs, then its manifest, then its tags.

Sources: the OCI distribution specification 1.1, "Pushing blobs"; the OCI image specification 1.1,
"Guidelines for Artifact Usage".
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from lapwing.errors import ImageMissingError, RegistryError
from lapwing.registry.chunks import OnSent, Splitter
from lapwing.registry.connection import Body
from lapwing.registry.manifest import Descriptor, Manifest
from lapwing.registry.parallel import run_all
from lapwing.registry.pull import BlobSource, BlobVerifier, verified
from lapwing.registry.registry import Request
from lapwing.registry.repository import Repository
from lapwing.registry.response import FullResponse, TransientFailure
from lapwing.stack.image import digest_of

MONOLITHIC_BYTES = 4 * 1024 * 1024
"""Bytes of a blob that is sent as one request, which cannot be resumed."""
CHUNK_BYTES = 256 * 1024 * 1024
"""Bytes of one request at most, at first."""
REDUCED_CHUNK_BYTES = 32 * 1024 * 1024
"""Bytes of one request after a 413 (content too large)."""
MAX_BLOBS = 6
"""Blobs that are pushed at once."""
CANCEL_TIMEOUT_S = 2.0
"""For cancelling an upload; registries also remove unfinished ones themselves."""

BlobOutcome = Literal["copied", "mounted", "present"]


class Progress(Protocol):
    """What shows the progress of blobs. `name` is a digest."""

    def begin(self, name: str, size: int) -> None:
        """Begin a blob of `size` bytes."""
        ...

    def advance(self, name: str, more: int) -> None:
        """Count more bytes of it as sent."""
        ...

    def end(self, name: str, outcome: BlobOutcome) -> None:
        """End it: it is at the destination."""
        ...


class Silent:
    """Shows no progress."""

    def begin(self, name: str, size: int) -> None:
        """Ignore the blob."""

    def advance(self, name: str, more: int) -> None:
        """Ignore the bytes."""

    def end(self, name: str, outcome: BlobOutcome) -> None:
        """Ignore the outcome."""


class Counts(Protocol):
    """What counts pushed blobs, by outcome, and their bytes."""

    blobs: dict[BlobOutcome, int]
    sent: int


@dataclass(slots=True)
class _Upload:
    """An upload in progress: its URL, and how many bytes the registry has."""

    location: str
    min_chunk: int = 0
    """Bytes of a chunk at least, if the registry says so."""
    offset: int = 0
    resumed: bool = False
    lost: bool = False
    """Whether the registry forgot it, or has something else than was sent."""

    @property
    def retryable(self) -> tuple[int, ...]:
        """Statuses after which another way is tried.

        A registry may still have been writing what came on a broken connection when it reported its
        offset: then the digest is wrong (400).
        """
        return (404, 413, 400) if self.resumed else (404, 413)


class BlobPusher:
    """Pushes blobs to one repository. `mount_from` is another repository of the same registry."""

    def __init__(self, target: Repository, *, mount_from: str | None = None) -> None:
        self._target = target
        self._mount_from = mount_from
        self._chunk_bytes = CHUNK_BYTES

    async def push(
        self,
        blob: Descriptor,
        source: BlobSource,
        progress: Progress,
        counts: Counts | None = None,
        *,
        where: str,
    ) -> None:
        """Push a blob if the repository lacks it. `where` names the source in errors.

        Raises IntegrityError if the content differs from the descriptor: then the registry gets no
        blob of that digest from us.
        """

        def on_sent(more: int) -> None:
            if counts is not None:
                counts.sent += more
            progress.advance(blob.digest, more)

        progress.begin(blob.digest, blob.size)
        outcome = await self._push(blob, source, on_sent, where)
        self._target.registry.holders.setdefault(blob.digest, self._target.name)
        if counts is not None:
            counts.blobs[outcome] += 1
        progress.end(blob.digest, outcome)

    async def push_all(
        self,
        blobs: Iterable[tuple[Descriptor, BlobSource]],
        progress: Progress,
        counts: Counts | None = None,
        *,
        where: str,
    ) -> None:
        """Push blobs, several at once. Raises as `push`."""
        slots = asyncio.Semaphore(MAX_BLOBS)

        async def push(blob: Descriptor, source: BlobSource) -> None:
            async with slots:
                await self.push(blob, source, progress, counts, where=where)

        await run_all(push(*each) for each in blobs)

    async def _push(
        self, blob: Descriptor, source: BlobSource, on_sent: OnSent, where: str
    ) -> BlobOutcome:
        if await self._target.has_blob(blob):
            return "present"
        verifier = BlobVerifier(blob.digest, blob.size, where, source.remedy(blob.digest))
        if blob.size == 0:
            verifier.update(b"")
        upload = await self._begin(blob)
        if upload is None:
            return "mounted"
        try:
            await self._upload(upload, verifier, source, on_sent)
        except BaseException:
            await self._cancel(upload)
            raise
        return "copied"

    async def check_access(self) -> None:
        """Begin an upload and cancel it. Raises RegistryError without write access."""
        upload = await self._begin(Descriptor(digest=digest_of(b""), size=0))
        if upload is not None:
            await self._cancel(upload)

    async def _begin(self, blob: Descriptor) -> _Upload | None:
        """Begin an upload; None if the registry mounted the blob instead."""
        path = self._target.path("blobs/uploads/")
        mount_from = self._mount_from or self._target.registry.holders.get(blob.digest)
        if mount_from and mount_from != self._target.name:
            path += f"?mount={blob.digest}&from={mount_from}"
        response = await self._request("POST", path, 201, 202, 405, mount_from=mount_from)
        if response.status == 405:
            raise RegistryError(
                f"{self._target} is read-only: {self._target.registry.host} does not accept "
                "uploads (405).",
                hint="Push to another registry, or end its maintenance mode.",
            )
        if response.status == 201:
            return None
        least = response.headers.get("oci-chunk-min-length", "")
        location = self._location(response.headers.get("location", ""))
        return _Upload(location, int(least) if least.isdecimal() else 0)

    async def _upload(
        self, upload: _Upload, verifier: BlobVerifier, source: BlobSource, on_sent: OnSent
    ) -> None:
        """Send what is missing until the registry has the whole blob."""
        failed, known, counted = 0, 0, 0

        def count(more: int) -> None:
            nonlocal counted
            counted += more
            on_sent(more)

        while True:
            try:
                await self._send(upload, verifier, source, count)
                return
            except TransientFailure as failure:
                failed += 1
                await self._target.registry.wait(failed, failure)
                body_sent = failure.body_sent
            if body_sent and await self._resume(upload, verifier):
                return
            count(upload.offset - counted)
            if upload.offset > known:
                failed, known = 0, upload.offset

    async def _send(
        self, upload: _Upload, verifier: BlobVerifier, source: BlobSource, on_sent: OnSent
    ) -> None:
        begin = verifier.rewind(upload.offset)
        stream = verified(source.read(verifier, begin), verifier)
        async with contextlib.aclosing(Splitter(stream, upload.offset - begin, on_sent)) as parts:
            if upload.offset == 0 and verifier.size <= min(self._chunk_bytes, MONOLITHIC_BYTES):
                await self._put(upload, verifier, parts.next(verifier.size), verifier.size)
                return
            while upload.offset < verifier.size:
                limit = max(self._chunk_bytes, upload.min_chunk)
                length = min(limit, verifier.size - upload.offset)
                await self._patch(upload, parts.next(length), length)
        await self._put(upload, verifier, b"", 0)

    async def _patch(self, upload: _Upload, body: Body, length: int) -> None:
        headers = {
            **_body_headers(length),
            "Content-Range": f"{upload.offset}-{upload.offset + length - 1}",
        }
        request = Request("PATCH", upload.location, headers, body)
        async with self._target.exchange(request, 202, 204, *upload.retryable, 416) as response:
            if response.status not in (202, 204):
                raise self._upload_error(upload, response.status, length)
            upload.location = self._location(response.headers.get("location", upload.location))
            upload.offset += length

    async def _put(self, upload: _Upload, verifier: BlobVerifier, body: Body, length: int) -> None:
        joint = "&" if "?" in upload.location else "?"
        url = f"{upload.location}{joint}digest={verifier.digest}"
        request = Request("PUT", url, _body_headers(length), body)
        async with self._target.exchange(request, 201, *upload.retryable) as response:
            if response.status != 201:
                raise self._upload_error(upload, response.status, length)
            stated = response.headers.get("docker-content-digest")
            if stated:
                self._target.check_stored(stated, verifier.digest, "blob")

    async def _resume(self, upload: _Upload, verifier: BlobVerifier) -> bool:
        """Find the offset of an upload; return whether the blob is complete after all."""
        blob = Descriptor(digest=verifier.digest, size=verifier.size)
        if await self._target.has_blob(blob):
            return True
        response = None
        if not upload.lost:
            with contextlib.suppress(RegistryError):
                response = await self._request("GET", upload.location, 204, 200)
        if response is None:
            begun = await self._begin(blob)
            if begun is None:
                return True
            upload.location, upload.offset = begun.location, 0
            upload.resumed = upload.lost = False
            return False
        upload.resumed = True
        stored = re.fullmatch(r"(?:bytes=)?0-(\d+)", response.headers.get("range", ""))
        upload.location = self._location(response.headers.get("location", upload.location))
        last = int(stored[1]) if stored else 0
        # An empty upload is reported as 0-0, as is one with a single byte.
        upload.offset = last + 1 if 0 < last < verifier.size else 0
        return False

    def _upload_error(self, upload: _Upload, status: int, length: int) -> Exception:
        """Return what a status means.

        After 413 smaller chunks are tried, after 416 the registry is asked for the offset, after
        400 and 404 a new upload begins.
        """
        host = self._target.registry.host
        if status in (400, 404):
            upload.lost = True
            return TransientFailure(
                RegistryError(
                    f"{host} loses uploads before they are complete (status {status}).",
                    hint="Several servers behind one host name have to share their storage.",
                )
            )
        smallest = self._chunk_bytes <= REDUCED_CHUNK_BYTES or length <= REDUCED_CHUNK_BYTES
        if status == 413 and smallest:
            return RegistryError(
                f"{host} refuses a request of {length} bytes (413).",
                hint="Raise the limit for request bodies of the proxy in front of it.",
            )
        if status == 413:
            self._chunk_bytes = REDUCED_CHUNK_BYTES
        error = RegistryError(f"{host} does not support uploads in chunks.")
        return TransientFailure(error, retry_after=0.0)

    async def _cancel(self, upload: _Upload) -> None:
        request = Request("DELETE", upload.location)
        with contextlib.suppress(RegistryError, TransientFailure, TimeoutError):
            async with (
                asyncio.timeout(CANCEL_TIMEOUT_S),
                self._target.exchange(request, 202, 204, 200),
            ):
                pass

    def _location(self, location: str) -> str:
        if not location:
            raise RegistryError(f"{self._target} began an upload without a Location header.")
        return self._target.registry.url(location)

    async def _request(
        self, method: str, path: str, *ok: int, mount_from: str | None = None
    ) -> FullResponse:
        try:
            return await self._target.request(Request(method, path), *ok, mount_from=mount_from)
        except ImageMissingError as error:
            raise RegistryError(
                f"Cannot push to {self._target}: {error.message.rstrip('.')}.",
                hint="Some registries require the repository, or its project, to be created first.",
            ) from error


def _body_headers(length: int) -> dict[str, str]:
    return {"Content-Type": "application/octet-stream", "Content-Length": str(length)}


async def push_artifact(
    manifest: Manifest,
    blobs: Iterable[tuple[Descriptor, BlobSource]],
    target: Repository,
    tags: Iterable[str],
    progress: Progress,
    where: str,
) -> None:
    """Push an artifact under some tags; what is there is not sent again.

    `where` is its name in errors.

    Raises RegistryError; then no tag was written but those before the one that was refused.
    """
    pusher = BlobPusher(target)
    await pusher.push_all(blobs, progress, where=where)
    for tag in tags:
        await target.ensure_manifest(manifest, tag)
