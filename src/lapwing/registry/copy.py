"""Copying an image between registries, with no daemon and no layer in memory.

    what is at the source -> which manifests hang on it -> their blobs -> the manifests, children
    first -> referrers -> the tags

A tag is the last thing that is written, so whoever pulls it gets a whole image or the one before,
and a copy that is interrupted anywhere has only added blobs that nothing names yet: run again, it
finds them there. The root's bytes are pushed as they came, so it keeps its digest.

What is there already costs one question for each manifest, not one for each blob: a registry takes
a manifest only when it has its blobs, so the manifest answers for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lapwing.errors import IntegrityError, RegistryError
from lapwing.registry import manifest
from lapwing.registry.manifest import Descriptor, Manifest, Platform
from lapwing.registry.pull import Pulled
from lapwing.registry.push import BlobOutcome, Pusher
from lapwing.registry.referrers import attach, found_at
from lapwing.registry.repository import Repository

JOBS = 6
"""Blobs and questions on their way at once."""


class Progress(Protocol):
    """Who wants to know how a copy goes on. `name` is a digest."""

    def begin(self, name: str, size: int) -> None:
        """A blob of `size` bytes is looked at."""
        ...

    def advance(self, name: str, more: int) -> None:
        """More bytes of it are through."""
        ...

    def end(self, name: str, outcome: BlobOutcome) -> None:
        """It is at the destination."""
        ...


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to copy: the platforms of an index (all if none is named), and whether the referrers."""

    platforms: tuple[Platform, ...] = ()
    referrers: bool = False
    jobs: int = JOBS


@dataclass(slots=True)
class Copied:
    """What a copy did. `sent` is in bytes of blobs."""

    root: Manifest
    tags: list[str] = field(default_factory=list)
    blobs: dict[BlobOutcome, int] = field(
        default_factory=lambda: {"copied": 0, "mounted": 0, "present": 0}
    )
    manifests: int = 0
    referrers: int = 0
    left_out: int = 0
    """Layers that may not be distributed: their URLs are in the manifest."""
    sent: int = 0


async def copy(
    source: Repository,
    target: Repository,
    reference: str,
    tags: Sequence[str],
    wanted: Wanted,
    progress: Progress,
    *,
    expected: str | None = None,
) -> Copied:
    """Copy what `reference` (a tag or digest) names, and tag it; without tags, only by digest.
    `expected` is the digest that it has to have.

    Raises RegistryError; then no tag was written, but for those that come before the one that a
    registry refused.
    """
    root = await source.manifest(reference)
    if wanted.platforms:
        root = await _narrowed(source, root, wanted.platforms)
    if expected and root.digest != expected:
        raise IntegrityError(
            f"{source} at {reference} is {root.digest}, and the destination is to be {expected}.",
            hint="Nothing was copied.",
        )
    run = _Copy(source, target, wanted, progress, Copied(root))
    await run.whole(root, tagged=bool(tags))
    await run.tag(root, tags)
    return run.done


class _Copy:
    """One copy on its way."""

    def __init__(
        self,
        source: Repository,
        target: Repository,
        wanted: Wanted,
        progress: Progress,
        done: Copied,
    ) -> None:
        self.done = done
        self._source = source
        self._target = target
        self._wanted = wanted
        self._progress = progress
        same_registry = source.registry.host == target.registry.host
        self._in_place = same_registry and source.name == target.name
        self._pusher = Pusher(target, mount_from=source.name if same_registry else None)
        self._content = Pulled(source)
        self._slots = asyncio.Semaphore(wanted.jobs)
        self._blobs: dict[str, asyncio.Task[None]] = {}
        self._visited: set[str] = set()
        self._weight = 0

    async def whole(self, root: Manifest, *, tagged: bool) -> None:
        """Bring all that hangs on the root; the root itself too, if no tag will bring it."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._bring(root, 0, put=not tagged))
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures

    async def tag(self, root: Manifest, tags: Iterable[str]) -> None:
        """Write the tags that do not name the root yet, one after the other."""
        for tag in tags:
            if await self._target.digest(tag) != root.digest:
                await self._target.put(root, tag)
            self.done.tags.append(tag)

    async def _bring(self, node: Manifest, depth: int, *, put: bool = True) -> None:
        """Bring one manifest with its blobs and children."""
        there = self._in_place or await self._held(node.digest)
        if node.is_index:
            await _all(self._child(child, depth + 1) for child in node.children)
        elif not there:
            await self._bring_blobs(node)
        if not there:
            self.done.manifests += 1
            if put:
                await self._target.put(node, node.digest)
        if self._wanted.referrers:
            await self._bring_referrers(node, depth)

    async def _child(self, child: Descriptor, depth: int) -> None:
        if self._visit(child.digest, child.size, depth):
            if self._complete(child) and await self._held(child.digest):
                return
            async with self._slots:
                node = await self._source.manifest(child.digest, child.size)
            await self._bring(node, depth)

    def _complete(self, child: Descriptor) -> bool:
        """Whether a manifest that is there answers for all that hangs on it: an index may have
        been taken without its children, and referrers have to be asked for."""
        return child.media_type in manifest.MANIFESTS and not self._wanted.referrers

    async def _held(self, digest: str) -> bool:
        async with self._slots:
            return await self._target.digest(digest) is not None

    def _visit(self, digest: str, size: int, depth: int) -> bool:
        """Whether a manifest is still to be brought. Raises RegistryError for too many."""
        if digest in self._visited:
            return False
        self._visited.add(digest)
        self._weight += size
        if (
            depth > manifest.DEEPEST
            or len(self._visited) > manifest.MOST_MANIFESTS
            or self._weight > manifest.MOST_BYTES
        ):
            raise RegistryError(
                f"{self._source} nests manifests deeper than {manifest.DEEPEST}, or has more than "
                f"{manifest.MOST_MANIFESTS} or {manifest.MOST_BYTES >> 20} MiB of them under one "
                "name.",
                hint="It may be made to do harm. Nothing was tagged.",
            )
        return True

    async def _bring_blobs(self, node: Manifest) -> None:
        tasks = []
        for blob in node.blobs:
            if blob.elsewhere:
                self.done.left_out += 1
                continue
            if blob.digest not in self._blobs:
                self._blobs[blob.digest] = self._group.create_task(self._blob(blob))
            tasks.append(self._blobs[blob.digest])
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            task.result()

    async def _blob(self, blob: Descriptor) -> None:
        def sent(more: int) -> None:
            self.done.sent += more
            self._progress.advance(blob.digest, more)

        async with self._slots:
            self._progress.begin(blob.digest, blob.size)
            outcome = await self._pusher.push(blob, self._content, sent, where=str(self._source))
        self.done.blobs[outcome] += 1
        self._progress.end(blob.digest, outcome)

    async def _bring_referrers(self, node: Manifest, depth: int) -> None:
        async with self._slots:
            found = await found_at(self._source, node.digest)
        for descriptor in found.attached:
            if self._visit(descriptor.digest, descriptor.size, depth + 1):
                async with self._slots:
                    one = await self._source.manifest(descriptor.digest, descriptor.size)
                await self._bring(one, depth + 1)
                await attach(self._target, one, node.digest)
                self.done.referrers += 1
        for tag in found.tags:
            async with self._slots:
                one = await self._source.manifest(tag)
            if self._visit(one.digest, len(one.raw), depth + 1):
                await self._bring(one, depth + 1)
            await self._tag_beside(one, tag)

    async def _tag_beside(self, one: Manifest, tag: str) -> None:
        """Tag a signature that is found by the name of its tag."""
        if await self._target.digest(tag) != one.digest:
            await self._target.put(one, tag)
        self.done.referrers += 1


async def _narrowed(source: Repository, root: Manifest, wanted: Sequence[Platform]) -> Manifest:
    """The image of the only platform, or an index with those that are wanted."""
    if not root.is_index:
        raise RegistryError(
            f"{source}@{root.digest} is for one platform: it is not an index.",
            hint="Leave --platform out.",
        )
    chosen = manifest.narrow(root, wanted)
    images = [c for c in chosen if c.platform and c.platform.os not in ("", "unknown")]
    if len(wanted) == 1 and len(images) == 1:
        return await source.manifest(images[0].digest, images[0].size)
    return manifest.narrowed(root, chosen)


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do all at once; the first failure ends the others."""
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure to tell: the others are the same one, or came of it."""
    told: list[BaseException] = []
    for failure in failures.exceptions:
        told.append(_first(failure) if isinstance(failure, BaseExceptionGroup) else failure)
    return next((f for f in told if isinstance(f, IntegrityError)), told[0])
