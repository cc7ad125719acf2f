"""What a release needs of a forge, whichever it is.

A release is made as a draft, gets its files, and is published last: so nobody sees one that is
half there, and a forge whose releases cannot be changed once published (GitHub's immutable
releases) takes the files, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of a release. `size` is in bytes; `digest` (`sha256:...`) where the forge knows it;
    without `whole`, its upload broke off."""

    id: int
    name: str
    size: int
    digest: str | None = None
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Published:
    """A release as a forge has it. `page` is its address for people."""

    id: int
    tag: str
    draft: bool
    page: str
    assets: Mapping[str, Asset] = field(default_factory=dict)
    uploads: str | None = None
    """Where files are sent to, for a forge that says so."""


@dataclass(frozen=True, slots=True)
class File:
    """A file to upload."""

    name: str
    content: bytes = field(repr=False)
    media_type: str = "application/octet-stream"


class Forge(Protocol):
    """Releases of one repository. Every method raises ForgeError or ForgeLoginError."""

    async def find(self, tag: str) -> Published | None:
        """The release of a tag, published or a draft; None if there is none."""
        ...

    async def create(self, tag: str, commit: str, notes: str) -> Published:
        """Make a draft for a tag that is there. Raises Unclear if it may have been made."""
        ...

    async def upload(self, release: Published, file: File) -> Asset:
        """Add a file. Raises Unclear if it may have arrived."""
        ...

    async def remove(self, release: Published, asset: Asset) -> None:
        """Remove a file whose upload broke off."""
        ...

    async def publish(self, release: Published) -> Published:
        """Show a draft to everybody. Raises Unclear if it may have been done."""
        ...
