"""Copying an image between registries and layouts, without a daemon or a layer in memory.

    root manifest, and concurrently the present tags -> the manifests below it -> their blobs
    -> the manifests, children first -> referrers -> what the caller attaches -> the tags

Tags are written last, so a tag always names a complete image, the new one or the one before. An
interrupted copy has only added blobs that no tag names: a second run finds them there. The
root's bytes are pushed as received, so it keeps its digest.

What is there already costs one request for each manifest, not one for each blob: a registry accepts
a manifest only when it has its blobs, so a manifest proves that they are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lapwing.errors import IntegrityError, RegistryError
from lapwing.registry import manifest as manifests
from lapwing.registry.inspect import check_platform
from lapwing.registry.layout import Layout, blobs_of
from lapwing.registry.manifest import Descriptor, Manifest, Platform
from lapwing.registry.parallel import run_all, task_group
from lapwing.registry.push import BlobOutcome, BlobPusher, Progress
from lapwing.registry.referrers import attach_referrer, find_referrers
from lapwing.registry.repository import Repository

DEFAULT_JOBS = 6
"""Blobs and requests in progress at once."""

Attach = Callable[[Manifest], Awaitable[object]]
"""Pushes what refers to the copy, before a tag names it."""


class CopyOptions(NamedTuple):
    """What to copy: some platforms (default: all), and whether referrers and foreign layers.

    `attach` is called with the manifest of the copy before it is tagged.
    """

    platforms: tuple[Platform, ...] = ()
    referrers: bool = False
    foreign_layers: bool = False
    jobs: int = DEFAULT_JOBS
    attach: Attach | None = None


@dataclass(slots=True)
class CopyResult:
    """What a copy did. `sent` is in bytes of blobs."""

    root: Manifest
    tags: list[str] = field(default_factory=list)
    blobs: dict[BlobOutcome, int] = field(
        default_factory=lambda: {"copied": 0, "mounted": 0, "present": 0}
    )
    manifests: int = 0
    referrers: int = 0
    left_out: int = 0
    """Foreign layers, which the copy names but does not hold."""
    sent: int = 0


async def copy_image(
    source: Repository | Layout,
    target: Repository | Layout,
    reference: str,
    tags: Sequence[str],
    options: CopyOptions,
    progress: Progress,
    *,
    expected: str | None = None,
) -> CopyResult:
    """Copy the image at `reference` (a tag or digest), and tag it; without tags, only by digest.

    `expected` is the digest that it must have.

    Raises RegistryError; then no tag was written, except those before the one that a registry
    refused.
    """
    root, named = await _look_up(source, reference, target, tags)
    if options.platforms:
        root = await _select_platforms(source, root, options.platforms)
    if expected and root.digest != expected:
        raise IntegrityError(
            f"{source} at {reference} has the digest {root.digest}; the destination names "
            f"{expected}.",
            hint="Nothing was copied.",
        )
    run = _Copy(source, target, options, progress, CopyResult(root))
    run.present = {digest: True for digest in named.values() if digest}
    await run.copy_tree(root, tagged=bool(tags))
    if not tags and isinstance(target, Layout):
        target.name_image(root, "")
    if options.attach is not None:
        await options.attach(root)
    for tag in tags:
        if named[tag] != root.digest:
            await target.put_manifest(root, tag)
        run.result.tags.append(tag)
    return run.result


async def _look_up(
    source: Repository | Layout, reference: str, target: Repository | Layout, tags: Sequence[str]
) -> tuple[Manifest, dict[str, str | None]]:
    """Return the root manifest, and the digest of each tag at the target, by concurrent requests.

    Raises RegistryError: that of the source if both fail.
    """
    root, named = await asyncio.gather(
        source.manifest(reference),
        asyncio.gather(*map(target.digest, tags)),
        return_exceptions=True,
    )
    if isinstance(root, BaseException):
        raise root
    if isinstance(named, BaseException):
        raise named
    return root, dict(zip(tags, named, strict=True))


class _Copy:
    """One copy in progress."""

    def __init__(
        self,
        source: Repository | Layout,
        target: Repository | Layout,
        options: CopyOptions,
        progress: Progress,
        result: CopyResult,
    ) -> None:
        self.result = result
        self.present: dict[str, bool] = {}
        """Whether the target has a manifest, for each that was looked up."""
        self._source = source
        self._target = target
        self._options = options
        self._progress = progress
        self._same_repository = False
        mount_from = None
        if isinstance(source, Repository) and isinstance(target, Repository):
            mount_from = source.name if source.registry is target.registry else None
            self._same_repository = mount_from == target.name
        self._pusher: Layout | BlobPusher = (
            target if isinstance(target, Layout) else BlobPusher(target, mount_from=mount_from)
        )
        self._blob_source = blobs_of(source)
        self._slots = asyncio.Semaphore(options.jobs)
        self._blobs: dict[str, asyncio.Task[None]] = {}
        self._visited: set[str] = set()
        self._manifest_bytes = 0

    async def copy_tree(self, root: Manifest, *, tagged: bool) -> None:
        """Copy everything below the root; the root by digest only if it gets no tag."""
        async with task_group() as group:
            self._group = group
            group.create_task(self._copy_manifest(root, 0, put=not tagged))

    async def _copy_manifest(self, node: Manifest, depth: int, *, put: bool = True) -> None:
        """Copy one manifest with its blobs and children."""
        present = self._same_repository or await self._is_present(node.digest)
        if node.is_index:
            await run_all(self._copy_child(child, depth + 1) for child in node.children)
        elif not present:
            await self._copy_blobs(node.blobs)
        elif self._options.foreign_layers and not self._same_repository:
            await self._copy_blobs(blob for blob in node.blobs if blob.is_foreign)
        if not present:
            self.result.manifests += 1
            if put:
                await self._target.put_manifest(node, node.digest)
        if self._options.referrers:
            await self._copy_referrers(node, depth)

    async def _copy_child(self, child: Descriptor, depth: int) -> None:
        if self._visit(child.digest, child.size, depth):
            # A present manifest proves that its blobs are there. An index may have been accepted
            # without its children, or a manifest without foreign layers; referrers are looked up.
            options = self._options
            more = options.referrers or options.foreign_layers
            if (
                child.media_type in manifests.MANIFESTS
                and not more
                and await self._is_present(child.digest)
            ):
                return
            await self._copy_manifest(await self._manifest(child.digest, child.size), depth)

    async def _manifest(self, reference: str, size: int | None = None) -> Manifest:
        async with self._slots:
            return await self._source.manifest(reference, size)

    async def _is_present(self, digest: str) -> bool:
        if digest not in self.present:
            async with self._slots:
                self.present[digest] = await self._target.digest(digest) is not None
        return self.present[digest]

    def _visit(self, digest: str, size: int, depth: int) -> bool:
        """Return whether a manifest is still to be copied. Raises RegistryError for too many."""
        if digest in self._visited:
            return False
        self._visited.add(digest)
        self._manifest_bytes += size
        if (
            depth > manifests.MAX_DEPTH
            or len(self._visited) > manifests.MAX_MANIFESTS
            or self._manifest_bytes > manifests.MAX_TREE_BYTES
        ):
            raise RegistryError(
                f"The image at {self._source} exceeds a limit: indexes nested more than "
                f"{manifests.MAX_DEPTH} deep, more than {manifests.MAX_MANIFESTS} manifests, or "
                f"{manifests.MAX_TREE_BYTES >> 20} MiB of them.",
                hint="It may be malicious. Nothing was tagged.",
            )
        return True

    async def _copy_blobs(self, blobs: Iterable[Descriptor]) -> None:
        tasks = []
        for blob in blobs:
            if blob.is_foreign and not await self._has_foreign(blob):
                self.result.left_out += 1
                continue
            if blob.digest not in self._blobs:
                self._blobs[blob.digest] = self._group.create_task(self._copy_blob(blob))
            tasks.append(self._blobs[blob.digest])
        if tasks:
            await asyncio.wait(tasks)
        for task in tasks:
            task.result()

    async def _has_foreign(self, layer: Descriptor) -> bool:
        return self._options.foreign_layers and await self._source.has_blob(layer)

    async def _copy_blob(self, blob: Descriptor) -> None:
        async with self._slots:
            await self._pusher.push(
                blob, self._blob_source, self._progress, self.result, where=str(self._source)
            )

    async def _copy_referrers(self, node: Manifest, depth: int) -> None:
        async with self._slots:
            found = await find_referrers(self._source, node.digest)
        for descriptor in found.descriptors:
            if self._visit(descriptor.digest, descriptor.size, depth + 1):
                referrer = await self._manifest(descriptor.digest, descriptor.size)
                await self._copy_manifest(referrer, depth + 1)
                await attach_referrer(self._target, referrer, node.digest)
                self.result.referrers += 1
        for tag in found.tags:
            referrer = await self._manifest(tag)
            if self._visit(referrer.digest, len(referrer.raw), depth + 1):
                await self._copy_manifest(referrer, depth + 1)
            await self._target.ensure_manifest(referrer, tag)
            self.result.referrers += 1


async def _select_platforms(
    source: Repository | Layout, root: Manifest, wanted: Sequence[Platform]
) -> Manifest:
    """Return the image of the only platform, or an index with the selected ones."""
    if not root.is_index:
        await check_platform(source, root, wanted)
        return root
    chosen = manifests.select_platforms(root, wanted)
    images = [c for c in chosen if c.platform and c.platform.is_known]
    if len(wanted) == 1 and len(images) == 1:
        return await source.manifest(images[0].digest, images[0].size)
    return manifests.filter_index(root, chosen)
