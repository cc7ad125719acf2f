"""The steps of a release. Each checks first, and runs only where something is missing.

    chart, sbom, files    files, made from the commit; the same commit gives the same bytes
    registry              write access to where images go, and read access to what is mirrored
    tag, push             the version in git, and at the remote
    release               a draft on the forge, with the notes
    upload FILE           the chart, its checksum, the SBOM, the stack's own files
    image SERVICE         the version as another tag of the image built from this commit
    mirror IMAGE          a third-party image in the team's registry
    publish               the draft becomes visible, last

What exists and differs is an error: nothing that was released is ever changed. `run.py` has the
loop over the steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from lapwing.errors import ReleaseError
from lapwing.registry.client import RegistryClient
from lapwing.registry.copy import CopyOptions
from lapwing.registry.push import Progress
from lapwing.release.forges import Asset, Forge, ForgeRelease, ReleaseFile
from lapwing.release.git import Checkout
from lapwing.release.run import Missing, Present, Skipped, Step, StepState, run_once
from lapwing.stack.image import LATEST, Reference, digest_of
from lapwing.system.retry import RetryPolicy


@dataclass(slots=True)
class ReleaseState:
    """What the steps of one release share. `files` and `published` are filled by its steps."""

    tag: str
    head: str
    notes: str
    checkout: Checkout
    remote: str
    published: ForgeRelease | None = None
    files: dict[str, ReleaseFile] = field(default_factory=dict)
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    @property
    def version(self) -> str:
        """The version without the `v` of its tag."""
        return self.tag.removeprefix("v")


@dataclass(slots=True)
class MakeFiles(Step):
    """Makes files from the commit, or returns why there are none.

    Its check makes them, because they change nothing.
    """

    is_local: ClassVar[bool] = True
    state: ReleaseState
    make: Callable[[], list[ReleaseFile] | str]

    async def check(self) -> StepState:
        """Make the files."""
        files = self.make()
        if isinstance(files, str):
            return Skipped(files)
        self.state.files |= {file.name: file for file in files}
        return Missing(", ".join(file.name for file in files))

    async def run(self) -> str:
        """Do nothing: the files are made."""
        return ""


@dataclass(slots=True)
class CreateTag(Step):
    """Creates the tag in the local repository."""

    state: ReleaseState
    message: str

    async def check(self) -> StepState:
        """Look for the tag in the local repository, then at the remote."""
        state = self.state
        local = tag_state(state, state.checkout.tags().get(state.tag), "locally")
        return local if isinstance(local, Present) else remote_tag_state(state)

    async def run(self) -> str:
        """Create the tag."""
        self.state.checkout.tag(self.state.tag, self.state.head, self.message)
        return ""


@dataclass(slots=True)
class PushTag(Step):
    """Pushes the tag to the remote."""

    state: ReleaseState

    async def check(self) -> StepState:
        """Look for the tag at the remote."""
        return remote_tag_state(self.state)

    async def run(self) -> str:
        """Push the tag; a push whose response was lost counts as done if the tag is there."""
        try:
            self.state.checkout.push(self.state.remote, self.state.tag)
        except ReleaseError:
            if not isinstance(await self.check(), Present):
                raise
        return ""


def remote_tag_state(state: ReleaseState) -> StepState:
    """Return the state of the tag at the remote."""
    found = state.checkout.refs(state.remote).tags.get(state.tag)
    return tag_state(state, found, f"at {state.remote}")


def tag_state(state: ReleaseState, found: str | None, where: str) -> StepState:
    """Return the state of a tag that is on the commit `found`."""
    if found is None:
        return Missing(f"{state.tag} on {state.head[:12]}")
    if found != state.head:
        raise ReleaseError(
            f"{state.tag} is on {found[:12]} {where}, not on {state.head[:12]}.",
            hint="A version is released once. If the tag is a mistake, delete it; else run "
            "`git fetch --tags` and release again.",
        )
    return Present(f"{state.tag} {where}")


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
        state.published = await self.forge.create(state.tag, state.head, state.notes)


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
        await run_once(self._upload, self._check_again, self.state.retry)
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
    """Publishes the draft."""

    async def check(self) -> StepState:
        """Look whether the release is published."""
        found = await self.find()
        if found is None or found.draft:
            return Missing("" if found is None else found.page)
        return Present(found.page)

    async def run(self) -> str:
        """Publish the draft."""
        await run_once(self._publish, self.check, self.state.retry)
        return self.state.published.page if self.state.published else ""

    async def _publish(self) -> None:
        self.state.published = await self.forge.publish(self.release())


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

    It gets its own tag, `latest`, and the version of the release, which is written last and so
    shows that the others are there.
    """

    images: RegistryClient
    source: Reference
    target: Reference
    version: str
    options: CopyOptions
    progress: Progress

    async def check(self) -> StepState:
        """Look for the tags in the team's registry."""
        own_tag = self.source.tag or ""
        name = f"{self.target.name}:{own_tag}"
        for tag in (self.version, own_tag):
            if await self.images.digest(self.target.tagged(tag)) is None:
                return Missing(name)
        return Present(name)

    async def run(self) -> str:
        """Copy the image."""
        tags = [self.source.tag or "", LATEST, self.version]
        await self.images.copy(self.source, self.target, tags, self.options, self.progress)
        return f"{self.target.name}:{{{','.join(tags)}}}"


@dataclass(slots=True)
class CheckRegistry(Step):
    """Checks, before the tag exists, that the image steps of a release can succeed."""

    images: RegistryClient
    steps: list[TagImage | MirrorImage]
    _missing: list[TagImage | MirrorImage] = field(default_factory=list)

    async def check(self) -> StepState:
        """Look for the images; a complete release needs no access."""
        self._missing = [s for s in self.steps if isinstance(await s.check(), Missing)]
        if not self._missing:
            return Present()
        hosts = sorted({step.target.registry for step in self._missing})
        return Missing(f"write access to {', '.join(hosts)}")

    async def run(self) -> str:
        """Look for each source; begin an upload to each destination and cancel it."""
        for step in self._missing:
            if await self.images.digest(step.source) is None:
                raise ReleaseError(
                    f"{step.source} does not exist, or cannot be read without a login.",
                    hint="Correct its name in `mirror:`, or set "
                    "LAPWING_REGISTRY_<HOST>_TOKEN for its registry.",
                )
            await self.images.check_push(step.target)
        return ""
