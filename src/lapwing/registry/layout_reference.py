"""References to image layouts: `oci:DIR:TAG`, `oci-archive:FILE`, `docker-archive:FILE@DIGEST`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from lapwing.errors import ImageReferenceError
from lapwing.stack.image import check_digest, check_tag

KINDS = {"oci": False, "oci-archive": True, "docker-archive": True}
"""The prefixes of references to layouts, and whether they name an archive. Those of skopeo."""


class LayoutReference(NamedTuple):
    """A reference to a layout, such as `oci:DIR:TAG`. `wanted` is a tag, a digest or empty."""

    kind: str
    path: Path
    wanted: str = ""

    @property
    def name(self) -> str:
        """The reference without tag and digest."""
        return f"{self.kind}:{self.path}"

    @property
    def is_archive(self) -> bool:
        """Whether the layout is in a tar archive."""
        return KINDS[self.kind]

    @property
    def digest(self) -> str | None:
        """The digest, if there is one."""
        return self.wanted if ":" in self.wanted else None

    @property
    def tag(self) -> str | None:
        """The tag, if there is one."""
        return self.wanted if self.wanted and self.digest is None else None

    def __str__(self) -> str:
        """Return the reference as text."""
        joint = "@" if self.digest else ":"
        return f"{self.name}{joint}{self.wanted}" if self.wanted else self.name


def parse_layout(text: str) -> LayoutReference | None:
    """Parse `oci:DIR`, `oci-archive:FILE` or `docker-archive:FILE`, each with `:TAG` or `@DIGEST`.

    None for any other text. Raises ImageReferenceError for an invalid tag or digest.
    """
    kind, colon, rest = text.partition(":")
    if not colon or kind not in KINDS or rest.startswith("//"):
        return None
    path, _, wanted = rest.partition("@sha256:")
    if wanted:
        wanted = check_digest(f"sha256:{wanted}", of=text)
    elif "/" not in rest.rpartition(":")[2] and ":" in rest:
        path, _, wanted = rest.rpartition(":")
        check_tag(wanted, of=text)
    if not path:
        raise ImageReferenceError(
            f"{text!r} names no file.", hint="Write it like oci:folder:1.2 or oci-archive:app.tar."
        )
    return LayoutReference(kind, Path(path), wanted)
