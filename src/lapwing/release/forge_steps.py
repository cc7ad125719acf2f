"""The steps of a release on the forge: a draft with its files, published last.

An incomplete release is never visible as a published one, and each change whose response was lost
is checked before it is repeated.
"""

from __future__ import annotations

from dataclasses import dataclass

from lapwing.errors import ForgeError, ReleaseError
from lapwing.release.forges import Asset, Forge, ForgeRelease, ReleaseFile
from lapwing.release.run import Missing, Present, Skipped, Step, StepState, run_once
from lapwing.release.steps import ReleaseState
from lapwing.stack.image import digest_of


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


async def published_state(forge: Forge, tag: str) -> Present | Skipped:
    """Return whether the release of a tag is published."""
    found = await forge.find(tag)
    if found is not None and not found.draft:
        return Present(found.page)
    return Skipped(f"{tag} is incomplete; to complete it, run `lapwing release` on its commit")


@dataclass(slots=True)
class CheckPrevious(ForgeStep):
    """Names the last version if its release was interrupted."""

    last: str

    async def check(self) -> StepState:
        """Look for the last version's release."""
        return await published_state(self.forge, self.last)

    async def run(self) -> str:
        """Do nothing: this step only checks."""
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
            state.tag,
            state.head,
            notes,
            newest=state.is_newest,
            prerelease=bool(state.next.prerelease),
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
