"""Versions as releases have them: `v` and three numbers. Pure.

Only `vX.Y.Z` counts. Other tags (`nightly`, `v1.2`, `v2.0.0-rc.1`) are nobody's release of ours;
`near_miss` finds those that a person may have meant as one, so that they can be told.
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
    """Three numbers, ordered as versions are."""

    major: int
    minor: int
    patch: int

    @property
    def tag(self) -> str:
        """The name of its git tag."""
        return f"v{self}"

    def bumped(self, bump: Bump) -> Version:
        """The next version."""
        if bump is Bump.MAJOR:
            return Version(self.major + 1, 0, 0)
        if bump is Bump.MINOR:
            return Version(self.major, self.minor + 1, 0)
        return Version(self.major, self.minor, self.patch + 1)

    def bump_to(self, later: Version) -> Bump:
        """The first number that differs from a later version's."""
        if later.major != self.major:
            return Bump.MAJOR
        return Bump.MINOR if later.minor != self.minor else Bump.PATCH

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


NONE = Version(0, 0, 0)
"""What counts as the last version where there is no tag."""


def parse(text: str) -> Version | None:
    """The version in `1.2.3` or `v1.2.3`; None if it is not one."""
    return of_tag(text if text.startswith("v") else f"v{text}")


def of_tag(tag: str) -> Version | None:
    """The version that a tag names, None if it names none."""
    found = _TAG.fullmatch(tag)
    return Version(*map(int, found.groups())) if found else None


def near_miss(tag: str) -> bool:
    """Whether a tag looks like a version, but is not `vX.Y.Z`."""
    return of_tag(tag) is None and _NEAR.fullmatch(tag) is not None
