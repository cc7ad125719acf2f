"""The step of a release that mirrors a third-party image to the team's registry.

The digest of its source is recorded in the message of the git tag (`ReleaseState.pins`), so that a
release that is completed later copies the same image. The provenance of the copy names the source
with this digest. It does not name the release: an image that several releases mirror has one
provenance, and the same bytes are not pushed again. There is no SBOM, because Lapwing does not read
the layers of images that it did not build.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from lapwing.errors import ReleaseError
from lapwing.registry.attestations import MIRROR, attach, make_attestations, provenance_predicate
from lapwing.registry.client import RegistryClient
from lapwing.registry.copy import CopyOptions
from lapwing.registry.manifest import Manifest
from lapwing.registry.push import Progress
from lapwing.registry.signature import Signer
from lapwing.release.run import Missing, Present, Step, StepState
from lapwing.release.steps import ReleaseState
from lapwing.stack.image import LATEST, Reference
from lapwing.stack.release_rules import mirrored_version


@dataclass(slots=True)
class MirrorImage(Step):
    """Copies a third-party image to the team's registry, with its provenance and signatures.

    Its tags are the version of the source without a `v`, `latest`, and the version of the release.
    The last one is written last: if it exists, the others do, too.
    """

    images: RegistryClient
    source: Reference
    target: Reference
    state: ReleaseState
    options: CopyOptions
    find_signer: Callable[[], Signer | None]
    progress: Progress

    @property
    def source_tag(self) -> str:
        """The version of the source, as a tag."""
        return mirrored_version(self.source)

    async def check(self) -> StepState:
        """Look for the tags in the team's registry, else for the source and the signer."""
        name = f"{self.target.name}:{self.source_tag}"
        found = {tag: await self.images.digest(self.target.tagged(tag)) for tag in self._tags()}
        if all(found.values()):
            return Present(name)
        await self._pin(found[self.source_tag])
        self.find_signer()
        return Missing(name)

    async def run(self) -> str:
        """Copy the image, by the digest of this release; tag it when it is signed."""
        source = self.source.at(self.state.pins[self._image])
        tags = self._tags()
        options = self.options._replace(attach=self._attach)
        await self.images.copy(source, self.target, tags, options, self.progress)
        return f"{self.target.name}:{{{','.join(tags)}}}"

    async def _attach(self, root: Manifest) -> None:
        """Push the provenance and the signatures of the copy."""
        signer, name = self.find_signer(), self.target.name
        origin = mirror_provenance(self.source, self.state.pins[self._image], self.options)
        found = make_attestations(name, root.digest, None, origin, signed=signer is not None)
        await attach(self.images, self.target, root, found, signer, self.progress)

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


def mirror_provenance(source: Reference, digest: str, options: CopyOptions) -> dict[str, Any]:
    """Return the SLSA predicate of a mirrored image: its source with the digest."""
    tag = str(replace(source, digest=None))
    algorithm, _, encoded = digest.partition(":")
    image = {"name": tag, "uri": f"oci://{source.name}", "digest": {algorithm: encoded}}
    parameters = {"image": tag, "platforms": [str(each) for each in options.platforms]}
    return provenance_predicate(MIRROR, parameters, [image])
