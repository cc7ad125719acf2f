"""The steps of a release in the team's registry: images get the version as a tag, or are mirrored.

The digest of a mirrored image is recorded in the message of the git tag (`ReleaseState.pins`), so
that a release that is completed later copies the same image.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from lapwing.errors import RegistryLoginError, ReleaseError
from lapwing.registry.client import RegistryClient
from lapwing.registry.copy import CopyOptions
from lapwing.registry.push import Progress
from lapwing.release.run import Missing, Present, Skipped, Step, StepState
from lapwing.release.steps import ReleaseState
from lapwing.stack.image import LATEST, Reference
from lapwing.stack.release_rules import mirrored_version

T = TypeVar("T")


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
                hint="Run `lapwing ship -e NAME` for this commit first.",
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
    The last one is written last: if it exists, the others do, too.
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

        A digest in the file is used as it is. Otherwise the tag must be the same image as in
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
