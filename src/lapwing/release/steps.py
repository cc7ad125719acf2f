"""The steps of a release. Each checks first, and runs only where something is missing.

    previous              whether the last version was published
    forge                 write access to the remote and the forge
    registry              write access to where images go, and read access to what is mirrored
    chart, sbom, files    files, made from the commit; the same commit gives the same bytes
    tag                   the version in git, at the remote only: a failed push leaves nothing here
    release               a draft on the forge, with the notes
    upload FILE           the chart, its checksum, the SBOM, the stack's own files
    image SERVICE         the version as another tag of the image built from this commit
    mirror IMAGE          a third-party image in the team's registry, with its provenance
    publish               the draft becomes visible, last

What exists and differs is an error: nothing that was released is ever changed. Another job may
release at the same time: the push of the tag decides which commit gets the version, and the other
job decides again (`TagTaken`). `run.py` has the loop over the steps, `forge_steps.py`,
`image_steps.py` and `mirror_steps.py` those on the forge and in the registry.

The tag's message has the digest of each mirrored image, as it was when the version was released: a
release that is completed later copies the same image, and the next one finds out if a tag of the
source was moved.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from lapwing.errors import ReleaseError
from lapwing.release.forges import ForgeRelease, ReleaseFile
from lapwing.release.git import Checkout
from lapwing.release.run import Missing, Present, Skipped, Step, StepState
from lapwing.release.version import Version
from lapwing.system.retry import RetryPolicy

_PIN = re.compile(r"^(\S+)@(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$", re.M)


class TagTaken(Exception):
    """Another job created the tag in the meantime: decide again."""


@dataclass(slots=True)
class ReleaseState:
    """What the steps of one release share. `files`, `pins` and `published` are filled by its steps.

    `pins` are the digests of mirrored images, `last_pins` those of the last version. `newer` is the
    commit of a higher final version, if there is one. `is_resumed`: the tag was there before.
    """

    next: Version
    head: str
    notes: str
    checkout: Checkout
    remote: str
    newer: str | None = None
    is_resumed: bool = False
    pins: dict[str, str] = field(default_factory=dict)
    last_pins: Mapping[str, str] = field(default_factory=dict)
    published: ForgeRelease | None = None
    files: dict[str, ReleaseFile] = field(default_factory=dict)
    retry: RetryPolicy = field(default_factory=RetryPolicy)

    @property
    def tag(self) -> str:
        """The tag in git."""
        return self.next.tag

    @property
    def version(self) -> str:
        """The version, as in tags of images."""
        return str(self.next)

    @property
    def is_newest(self) -> bool:
        """Whether `latest` moves to this version: final, and none is higher."""
        return self.newer is None and not self.next.prerelease

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
        created = state.checkout.create_tag(state.tag, state.head, message, state.newer)
        try:
            state.checkout.push_tag(state.remote, state.tag, created)
        except ReleaseError:
            there = state.checkout.refs(state.remote).objects.get(state.tag)
            if there is None:
                raise
            if there != created:
                raise TagTaken from None
        return ""
