"""The steps of a release. Each asks the world first, and acts only where something is missing.

    chart, sbom        files, made from the commit; the same commit gives the same bytes
    tag, push          the version in git, and at the remote
    release            a draft on the forge, with the notes
    upload FILE        the chart, its checksum, the SBOM, the stack's own files
    image SERVICE      the version as another tag of what was built of this commit
    mirror IMAGE       somebody else's image in the team's registry
    publish            the draft becomes visible, last

`run.py` has the loop over them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lapwing.errors import ReleaseError
from lapwing.registry.copy import CopyOptions
from lapwing.registry.push import Progress
from lapwing.registry.registry import RetryPolicy
from lapwing.release import plan
from lapwing.release.forge.model import File, Forge, Published
from lapwing.release.git import Checkout
from lapwing.release.plan import LeftOut, Missing, Present, Verdict
from lapwing.release.run import surely
from lapwing.stack.image import LATEST, Reference


class Images(Protocol):
    """Registries, as the release uses them: `artifacts.registry.client.Client`."""

    async def copy(
        self,
        source: Reference,
        destination: Reference,
        tags: Sequence[str],
        wanted: CopyOptions,
        progress: Progress,
    ) -> object:
        """Copy an image, and tag it, in the order of the tags."""
        ...

    async def digest(self, reference: Reference) -> str | None:
        """What a tag names; None if there is no such tag."""
        ...


@dataclass(slots=True)
class Work:
    """What the steps of one release share."""

    tag: str
    head: str
    notes: str
    checkout: Checkout
    remote: str
    forge: Forge | None = None
    published: Published | None = None
    files: dict[str, File] = field(default_factory=dict)
    patience: RetryPolicy = field(default_factory=RetryPolicy)


@dataclass(slots=True)
class Make:
    """Files made from the commit. They change nothing, so looking makes them."""

    name: str
    work: Work
    make: Callable[[], list[File]]
    left_out: str | None = None
    is_local: bool = True

    async def look(self) -> Verdict:
        """Make the files."""
        if self.left_out is not None:
            return LeftOut(self.left_out)
        made = self.make()
        self.work.files |= {file.name: file for file in made}
        return Missing(", ".join(file.name for file in made))

    async def act(self) -> str:
        """They are made."""
        return ""


@dataclass(slots=True)
class Tag:
    """The tag, here."""

    work: Work
    message: str
    name: str = "tag"
    is_local: bool = False

    async def look(self) -> Verdict:
        """Here, or at the remote."""
        checkout, work = self.work.checkout, self.work
        here = plan.tag(work.tag, work.head, checkout.tags().get(work.tag), "here")
        if isinstance(here, Present):
            return here
        far = checkout.refs(work.remote).tags.get(work.tag)
        return plan.tag(work.tag, work.head, far, f"at {work.remote}")

    async def act(self) -> str:
        """Make it."""
        self.work.checkout.tag(self.work.tag, self.work.head, self.message)
        return ""


@dataclass(slots=True)
class Push:
    """The tag, at the remote."""

    work: Work
    name: str = "push"
    is_local: bool = False

    async def look(self) -> Verdict:
        """Ask the remote."""
        work = self.work
        far = work.checkout.refs(work.remote).tags.get(work.tag)
        return plan.tag(work.tag, work.head, far, f"at {work.remote}")

    async def act(self) -> str:
        """Push it; a push whose answer was lost counts as done if the tag is there."""
        work = self.work
        try:
            work.checkout.push(work.remote, work.tag)
        except ReleaseError:
            if not isinstance(await self.look(), Present):
                raise
        return ""


@dataclass(slots=True)
class Draft:
    """The release on the forge, with its notes."""

    work: Work
    forge: Forge
    name: str = "release"
    is_local: bool = False

    async def look(self) -> Verdict:
        """Find it."""
        self.work.published = await self.forge.find(self.work.tag)
        return plan.release(self.work.published, self.work.tag)

    async def act(self) -> str:
        """Make a draft."""
        await surely(self._create, self.look, self.work.patience)
        return ""

    async def _create(self) -> None:
        work = self.work
        work.published = await self.forge.create(work.tag, work.head, work.notes)


@dataclass(slots=True)
class Upload:
    """A file of the release."""

    work: Work
    forge: Forge
    file: str
    is_local: bool = False

    @property
    def name(self) -> str:
        """With the file."""
        return f"upload {self.file}"

    async def look(self) -> Verdict:
        """Compare it with what the release has."""
        found = self.work.published
        asset = found.assets.get(self.file) if found else None
        return plan.asset(asset, self.work.files[self.file])

    async def act(self) -> str:
        """Send it, after what is left of an upload that broke off."""
        await surely(self._send, self._look_again, self.work.patience)
        return ""

    async def _look_again(self) -> Verdict:
        self.work.published = await self.forge.find(self.work.tag)
        return await self.look()

    async def _send(self) -> None:
        release = self.work.published
        if release is None:
            raise ReleaseError("The release on the forge is gone.", hint="Run it again.")
        broken = release.assets.get(self.file)
        if broken is not None and not broken.whole:
            await self.forge.remove(release, broken)
        await self.forge.upload(release, self.work.files[self.file])


@dataclass(slots=True)
class Publish:
    """The draft, shown to everybody."""

    work: Work
    forge: Forge
    name: str = "publish"
    is_local: bool = False

    async def look(self) -> Verdict:
        """Ask what the forge shows."""
        self.work.published = await self.forge.find(self.work.tag)
        return plan.publication(self.work.published)

    async def act(self) -> str:
        """Publish it."""
        await surely(self._publish, self.look, self.work.patience)
        return self.work.published.page if self.work.published else ""

    async def _publish(self) -> None:
        if self.work.published is None:
            raise ReleaseError("The release on the forge is gone.", hint="Run it again.")
        self.work.published = await self.forge.publish(self.work.published)


@dataclass(slots=True)
class TagImage:
    """The version as a tag of a service's image."""

    images: Images
    service: str
    source: Reference
    version: str
    progress: Progress
    is_local: bool = False

    @property
    def name(self) -> str:
        """With the service."""
        return f"image {self.service}"

    @property
    def goal(self) -> Reference:
        """The image under its version."""
        return self.source.tagged(self.version)

    async def look(self) -> Verdict:
        """Compare the version's tag with the commit's."""
        built = await self.images.digest(self.source)
        tagged = await self.images.digest(self.goal)
        if built is None and tagged is None:
            newest = self.source.tagged(LATEST)
            if await self.images.digest(newest) is None:
                return LeftOut(f"there is no {newest}: nothing was pushed yet")
        return plan.image(str(self.source), built, str(self.goal), tagged)

    async def act(self) -> str:
        """Tag it; no layer is moved."""
        bare = Reference(self.source.registry, self.source.repository)
        await self.images.copy(self.source, bare, [self.version], CopyOptions(), self.progress)
        return ""


@dataclass(slots=True)
class Mirror:
    """Somebody else's image in the team's registry, under the tags of `plan.mirrored`."""

    images: Images
    source: Reference
    goal: Reference
    app: str
    version: str
    wanted: CopyOptions
    progress: Progress
    is_local: bool = False

    @property
    def name(self) -> str:
        """With the image as the stack file has it."""
        return f"mirror {self.source.repository}"

    async def look(self) -> Verdict:
        """Ask the team's registry only."""
        of_release = await self.images.digest(self.goal.tagged(self.version))
        of_app = await self.images.digest(self.goal.tagged(self.app))
        return plan.mirrored(f"{self.goal.name}:{self.app}", of_release, of_app)

    async def act(self) -> str:
        """Copy it; the tag that tells that all of it was done comes last."""
        tags = [self.app, "latest", self.version]
        await self.images.copy(self.source, self.goal, tags, self.wanted, self.progress)
        return f"{self.goal.name}:{{{','.join(tags)}}}"
