"""The steps of a release. Each checks first, and runs only where something is missing.

    previous              whether the last version was published
    forge                 write access to the remote and the forge
    registry              write access to where images go, and read access to what is mirrored
    chart, sbom, files    files, made from the commit; the same commit gives the same bytes
    tag                   the version in git, at the remote only: a failed push leaves nothing here
    release               a draft on the forge, with the notes
    upload FILE           the chart, its checksum, the SBOM, the stack's own files
    image SERVICE         the version as another tag of the image built from this commit
    mirror IMAGE          a third-party image in the team's registry
    publish               the draft becomes visible, last

What exists and differs is an error: nothing that was released is ever changed. Another job may
release at the same time: the push of the tag decides which commit gets the version, and the other
job decides again (`TagTaken`). `run.py` has the loop over the steps.

The tag's message has the digest of each mirrored image, as it was when the version was released: a
release that is completed later copies the same image, and the next one finds out if a tag of the
source was moved.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, TypeVar

from lapwing.errors import ForgeError, RegistryLoginError, ReleaseError
from lapwing.registry.client import RegistryClient
from lapwing.registry.copy import CopyOptions
from lapwing.registry.push import Progress
from lapwing.release.forges import Asset, Forge, ForgeRelease, ReleaseFile
from lapwing.release.git import Checkout
from lapwing.release.run import Missing, Present, Skipped, Step, StepState, run_once
from lapwing.stack.image import LATEST, Reference, digest_of
from lapwing.stack.release_rules import mirrored_version
from lapwing.system.retry import RetryPolicy

T = TypeVar("T")
_PIN = re.compile(r"^(\S+)@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$", re.M)


class TagTaken(Exception):
    """Another job created the tag in the meantime: decide again."""


@dataclass(slots=True)
class ReleaseState:
    """What the steps of one release share. `files`, `pins` and `published` are filled by its steps.

    `pins` are the digests of mirrored images, `last_pins` those of the last version. `is_newest`:
    there is no higher version, so `latest` may move. `is_resumed`: the tag was there before.
    """

    tag: str
    head: str
    notes: str
    checkout: Checkout
    remote: str
    is_newest: bool = True
    is_resumed: bool = False
    pins: dict[str, str] = field(default_factory=dict)
    last_pins: Mapping[str, str] = field(default_factory=dict)
    published: ForgeRelease | None = None
    files: dict[str, ReleaseFile] = field(default_factory=dict)
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    @property
    def version(self) -> str:
        """The version without the `v` of its tag."""
        return self.tag.removeprefix("v")

    @property
    def pinned(self) -> str:
        """The mirrored images with their digests, one in each line."""
        return "".join(f"{image}@{digest}\n" for image, digest in sorted(self.pins.items()))


def read_pins(message: str) -> dict[str, str]:
    """Return the digests of mirrored images in the message of a tag."""
    return dict(_PIN.findall(message))


@dataclass(slots=True)
class MakeFiles(Step):
    """Makes files from the commit, or returns why there are none.

    Its check makes them, because they change nothing.
    """

    is_local: ClassVar[bool] = True
    state: ReleaseState
    make: Callable[[], list[ReleaseFile] | str]
    note: str = ""

    async def check(self) -> StepState:
        """Make the files."""
        files = self.make()
        if isinstance(files, str):
            return Skipped(files)
        self.state.files |= {file.name: file for file in files}
        names = ", ".join(file.name for file in files)
        return Missing(f"{names}; {self.note}" if self.note else names)

    async def run(self) -> str:
        """Do nothing: the files are made."""
        return ""


@dataclass(slots=True)
class CreateTag(Step):
    """Creates the tag at the remote."""

    state: ReleaseState
    title: str

    async def check(self) -> StepState:
        """Look for the tag at the remote."""
        state = self.state
        found = state.checkout.refs(state.remote).tags.get(state.tag)
        if found is None:
            return Missing(f"{state.tag} on {state.head[:12]}")
        if found != state.head or not state.is_resumed:
            raise TagTaken
        return Present(f"{state.tag} at {state.remote}")

    async def run(self) -> str:
        """Push the tag; a push whose response was lost counts as done if the tag is there."""
        state = self.state
        message = f"{self.title}\n" + (f"\n{state.pinned}" if state.pins else "")
        created = state.checkout.create_tag(state.tag, state.head, message)
        try:
            state.checkout.push_tag(state.remote, state.tag, created)
        except ReleaseError:
            there = state.checkout.refs(state.remote).objects.get(state.tag)
            if there is None:
                raise
            if there != created:
                raise TagTaken from None
        return ""


@dataclass(slots=True)
class ForgeStep(Step):
    """A step on the forge."""

    state: ReleaseState
    forge: Forge

    async def find(self) -> ForgeRelease | None:
        """Find the release on the forge."""
        self.state.published = await self.forge.find(self.state.tag)
        return self.state.published

    def release(self) -> ForgeRelease:
        """Return the release that was found."""
        if self.state.published is None:
            raise ReleaseError(
                f"The release {self.state.tag} on the forge was deleted.",
                hint="Run `lapwing release` again.",
            )
        return self.state.published


@dataclass(slots=True)
class CheckPrevious(ForgeStep):
    """Names the last version if its release was interrupted."""

    last: str

    async def check(self) -> StepState:
        """Look for the last version's release."""
        found = await self.forge.find(self.last)
        if found is not None and not found.draft:
            return Present(found.page)
        return Skipped(
            f"{self.last} is incomplete; to complete it, run `lapwing release` on its commit"
        )

    async def run(self) -> str:
        """Do nothing: its check is all."""
        return ""


@dataclass(slots=True)
class CheckForge(ForgeStep):
    """Checks, before the tag exists, that the token can push it and create its release."""

    async def check(self) -> StepState:
        """Look for the release; a complete one needs no access."""
        found = await self.find()
        if found is not None and not found.draft:
            return Present()
        return Missing(f"write access to {self.forge.name}")

    async def run(self) -> str:
        """Log in for a push without pushing, and send a request that changes nothing."""
        state = self.state
        state.checkout.check_push(state.remote, state.head)
        await run_once(self._check_access, self.check, state.retry)
        return ""

    async def _check_access(self) -> None:
        await self.forge.check_access(self.state.tag, self.state.head)


@dataclass(slots=True)
class CreateDraft(ForgeStep):
    """Creates the release on the forge, with its notes, as a draft."""

    async def check(self) -> StepState:
        """Look for the release, published or a draft."""
        found = await self.find()
        if found is None:
            return Missing(f"{self.state.tag}, as a draft")
        return Present("a draft" if found.draft else found.page)

    async def run(self) -> str:
        """Create the draft."""
        await run_once(self._create, self.check, self.state.retry)
        return ""

    async def _create(self) -> None:
        state = self.state
        images = "".join(f"- `{line}`\n" for line in state.pinned.splitlines())
        notes = f"{state.notes}\n## Mirrored images\n\n{images}" if images else state.notes
        state.published = await self.forge.create(
            state.tag, state.head, notes, newest=state.is_newest
        )


@dataclass(slots=True)
class UploadFile(ForgeStep):
    """Uploads a file of the release."""

    file: str

    async def check(self) -> StepState:
        """Compare the file with the one of the release."""
        found = self.state.published
        asset = found.assets.get(self.file) if found else None
        return asset_state(asset, self.state.files[self.file])

    async def run(self) -> str:
        """Upload the file, after deleting what an interrupted upload left."""
        try:
            await run_once(self._upload, self._check_again, self.state.retry)
        except ForgeError:
            if not isinstance(await self._check_again(), Present):
                raise  # Else another job uploaded it in the meantime.
        return ""

    async def _check_again(self) -> StepState:
        await self.find()
        return await self.check()

    async def _upload(self) -> None:
        release = self.release()
        interrupted = release.assets.get(self.file)
        if interrupted is not None and not interrupted.complete:
            await self.forge.delete(release, interrupted)
        await self.forge.upload(release, self.state.files[self.file])


def asset_state(found: Asset | None, file: ReleaseFile) -> StepState:
    """Compare a file by its digest where the forge reports it, else by its size."""
    size = len(file.content)
    if found is None or not found.complete:
        return Missing(f"{size} bytes")
    digest = found.digest if (found.digest or "").startswith("sha256:") else None
    if found.size != size or (digest and digest != digest_of(file.content)):
        raise ReleaseError(
            f"The release already has another {file.name} ({found.size} bytes; this one has "
            f"{size}).",
            hint="Released files are not changed: release a new version. If that file is a "
            "mistake, delete it on the forge and run this again.",
        )
    return Present(f"{size} bytes")


@dataclass(slots=True)
class Publish(ForgeStep):
    """Publishes the draft, and removes files that two jobs uploaded."""

    async def check(self) -> StepState:
        """Look whether the release is published and has each file once."""
        found = await self.find()
        if found is None or found.draft or found.duplicates:
            return Missing("" if found is None else found.page)
        return Present(found.page)

    async def run(self) -> str:
        """Remove duplicates, and publish the draft."""
        await run_once(self._publish, self.check, self.state.retry)
        return self.state.published.page if self.state.published else ""

    async def _publish(self) -> None:
        release = self.release()
        for asset in release.duplicates:
            await self.forge.delete(release, asset)
        if release.draft:
            newest = self.state.is_newest
            self.state.published = await self.forge.publish(release, newest=newest)


@dataclass(slots=True)
class TagImage(Step):
    """Adds the version as a tag to a service's image."""

    images: RegistryClient
    source: Reference
    version: str
    progress: Progress

    @property
    def target(self) -> Reference:
        """The image with the version as its tag."""
        return self.source.tagged(self.version)

    async def check(self) -> StepState:
        """Compare the version's tag with the commit's."""
        source, target = self.source, self.target
        built = await self.images.digest(source)
        tagged = await self.images.digest(target)
        if tagged is not None:
            if built is None or built == tagged:
                return Present(str(target))
            raise ReleaseError(
                f"{target} already exists, and is another image than {source}.",
                hint="A version is released once. If that tag is a mistake, delete it in the "
                "registry.",
            )
        if built is None:
            newest = source.tagged(LATEST)
            if await self.images.digest(newest) is None:
                return Skipped(f"{newest} does not exist: nothing was pushed yet")
            raise ReleaseError(
                f"{source} does not exist: no image was built from this commit.",
                hint="Run `lapwing ship` for this commit first.",
            )
        return Missing(str(target))

    async def run(self) -> str:
        """Tag the image; no layer is transferred."""
        bare = Reference(self.source.registry, self.source.repository)
        await self.images.copy(self.source, bare, [self.version], CopyOptions(), self.progress)
        return ""


@dataclass(slots=True)
class MirrorImage(Step):
    """Copies a third-party image to the team's registry.

    Its tags are the version of the source without a `v`, `latest`, and the version of the release.
    The last one is written last, and so shows that the others are there.
    """

    images: RegistryClient
    source: Reference
    target: Reference
    state: ReleaseState
    options: CopyOptions
    progress: Progress

    @property
    def source_tag(self) -> str:
        """The version of the source, as a tag."""
        return mirrored_version(self.source)

    async def check(self) -> StepState:
        """Look for the tags in the team's registry, else for the source."""
        name = f"{self.target.name}:{self.source_tag}"
        found = {tag: await self.images.digest(self.target.tagged(tag)) for tag in self._tags()}
        if all(found.values()):
            return Present(name)
        await self._pin(found[self.source_tag])
        return Missing(name)

    async def run(self) -> str:
        """Copy the image, by the digest of this release."""
        source = self.source.at(self.state.pins[self._image])
        tags = self._tags()
        await self.images.copy(source, self.target, tags, self.options, self.progress)
        return f"{self.target.name}:{{{','.join(tags)}}}"

    @property
    def _image(self) -> str:
        return str(replace(self.source, digest=None))

    def _tags(self) -> list[str]:
        newest = [LATEST] if self.state.is_newest else []
        return list(dict.fromkeys([self.source_tag, *newest, self.state.version]))

    async def _pin(self, present: str | None) -> None:
        """Resolve the source's tag, once for a release.

        A digest in the file is what the team wants. Otherwise the tag must be the same image as in
        the last version and in the team's registry, where a copy of some platforms has another
        digest.
        """
        state, image = self.state, self._image
        if image in state.pins:
            return
        digest = await self.images.digest(self.source)
        if digest is None:
            raise ReleaseError(
                f"{self.source} does not exist, or cannot be read without a login.",
                hint="Correct its name in `mirror:`, or set "
                "LAPWING_REGISTRY_<HOST>_TOKEN for its registry.",
            )
        before = state.last_pins.get(image) or (None if self.options.platforms else present)
        if self.source.digest is None and before not in (None, digest):
            raise ReleaseError(
                f"{image} was moved: it was {before} when it was mirrored, and is {digest} now.",
                hint="Find out why. To mirror the new image, write its digest into the file: "
                f"`{image}@{digest}`.",
            )
        state.pins[image] = digest


@dataclass(slots=True)
class CheckRegistry(Step):
    """Checks, before the tag exists, that the image steps of a release can succeed."""

    images: RegistryClient
    steps: list[TagImage | MirrorImage]
    _missing: list[TagImage | MirrorImage] = field(default_factory=list)

    async def check(self) -> StepState:
        """Look for the images; a complete release needs no access."""
        self._missing = [s for s in self.steps if isinstance(await _named(s, s.check), Missing)]
        if not self._missing:
            return Present()
        hosts = sorted({step.target.registry for step in self._missing})
        return Missing(f"write access to {', '.join(hosts)}")

    async def run(self) -> str:
        """Begin an upload to each destination and cancel it; each source was found."""
        for step in self._missing:
            await _named(step, partial(self.images.check_push, step.target))
        return ""


async def _named(step: TagImage | MirrorImage, request: Callable[[], Awaitable[T]]) -> T:
    """Name the variable with the token in an error about a login at the team's registry."""
    try:
        return await request()
    except RegistryLoginError as error:
        if step.target.registry in error.message:
            error.hint = (
                "Set LAPWING_REGISTRY_TOKEN to a token that can write packages: Gitea's job token "
                "cannot."
            )
        raise
