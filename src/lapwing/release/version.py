"""Versions of releases: `v` and three numbers.

Only `vX.Y.Z` counts. Other tags (`nightly`, `v1.2`, `v2.0.0-rc.1`) are ignored; `is_near_miss`
finds those that may have been meant as a version, so that a hint can name them.
Source: Semantic Versioning 2.0.0 (item 2: no leading zeros; items 7 and 8: what a bump resets).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_NUMBER = r"(0|[1-9][0-9]{0,8})"
_TAG = re.compile(rf"v{_NUMBER}\.{_NUMBER}\.{_NUMBER}")
_NEAR = re.compile(r"[vV]?\d+(\.\d+){0,3}")


class Bump(StrEnum):
    """Which number of a version a release raises."""

    MAJOR = "major"
    MINOR = "minor"
    PATCH = "patch"


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """Three numbers, ordered by precedence."""

    major: int
    minor: int
    patch: int

    @property
    def tag(self) -> str:
        """The git tag of the version."""
        return f"v{self}"

    def bumped(self, bump: Bump) -> Version:
        """Return the next version."""
        if bump is Bump.MAJOR:
            return Version(self.major + 1, 0, 0)
        if bump is Bump.MINOR:
            return Version(self.major, self.minor + 1, 0)
        return Version(self.major, self.minor, self.patch + 1)

    def bump_to(self, later: Version) -> Bump:
        """Return which number of a later version differs first."""
        if later.major != self.major:
            return Bump.MAJOR
        return Bump.MINOR if later.minor != self.minor else Bump.PATCH

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


NONE = Version(0, 0, 0)
"""The last version where there is no tag."""


def parse(text: str) -> Version | None:
    """Parse `1.2.3` or `v1.2.3`; None if it is not a version."""
    return of_tag(text if text.startswith("v") else f"v{text}")


def of_tag(tag: str) -> Version | None:
    """Return the version of a tag; None if it is not a version."""
    found = _TAG.fullmatch(tag)
    return Version(*map(int, found.groups())) if found else None


def is_near_miss(tag: str) -> bool:
    """Return whether a tag looks like a version, but is not `vX.Y.Z`."""
    return of_tag(tag) is None and _NEAR.fullmatch(tag) is not None
