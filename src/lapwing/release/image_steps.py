"""The steps of a release for images: check access to the registry, tag built images.

`mirror_steps.py` has the step for third-party images.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from lapwing.errors import RegistryLoginError, ReleaseError
from lapwing.registry.client import RegistryClient
from lapwing.registry.copy import CopyOptions
from lapwing.registry.push import Progress
from lapwing.release.mirror_steps import MirrorImage
from lapwing.release.run import Missing, Present, Skipped, Step, StepState
from lapwing.stack.image import LATEST, Reference

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
