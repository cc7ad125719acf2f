"""Versions of releases: three numbers, and for a pre-release an identifier and its number.

A tag is a prefix (`v`; of a project in a repository of several, such as `api-v`) and a version:
`v1.3.0`, `v1.3.0-rc.1`. Other tags (`nightly`, `v1.2`, `v2.0.0-rc1`) are ignored; `is_near_miss`
finds those that may have been meant as a version, so that a hint can name them.
Source: Semantic Versioning 2.0.0 (item 2: no leading zeros; items 7 and 8: what a bump resets; item
9: pre-releases; item 11: precedence). Build metadata (`+5`) is no part of a version here, because
tags of images cannot have a `+`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import total_ordering

from lapwing.stack.release_rules import IDENTIFIER

PREFIX = "v"
_NUMBER = r"(0|[1-9][0-9]{0,8})"
_VERSION = re.compile(rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({IDENTIFIER})\.{_NUMBER})?")
_NEAR = r"\d+(\.\d+){0,3}"


class Bump(StrEnum):
    """Which number of a version a release raises; of a pre-release, maybe only the last one."""

    MAJOR = "major"
    MINOR = "minor"
    PATCH = "patch"
    PRERELEASE = "prerelease"


@total_ordering
@dataclass(frozen=True, slots=True)
class Version:
    """A version, ordered by precedence; `prerelease` is empty for a final one."""

    major: int
    minor: int
    patch: int
    prerelease: str = ""
    number: int = 0
    prefix: str = field(default=PREFIX, compare=False)

    @property
    def tag(self) -> str:
        """The git tag of the version."""
        return f"{self.prefix}{self}"

    @property
    def final(self) -> Version:
        """The version that a pre-release precedes."""
        return replace(self, prerelease="", number=0)

    def bumped(self, bump: Bump) -> Version:
        """Return the next final version."""
        if bump is Bump.MAJOR:
            numbers = (self.major + 1, 0, 0)
        elif bump is Bump.MINOR:
            numbers = (self.major, self.minor + 1, 0)
        else:
            numbers = (self.major, self.minor, self.patch + 1)
        return Version(*numbers, prefix=self.prefix)

    def bump_to(self, later: Version) -> Bump:
        """Return which number of a later version differs first."""
        if later.major != self.major:
            return Bump.MAJOR
        if later.minor != self.minor:
            return Bump.MINOR
        return Bump.PATCH if later.patch != self.patch else Bump.PRERELEASE

    def __str__(self) -> str:
        suffix = f"-{self.prerelease}.{self.number}" if self.prerelease else ""
        return f"{self.major}.{self.minor}.{self.patch}{suffix}"

    def __lt__(self, other: Version) -> bool:
        return self._precedence < other._precedence

    @property
    def _precedence(self) -> tuple[int, int, int, bool, str, int]:
        numbers = (self.major, self.minor, self.patch)
        return (*numbers, not self.prerelease, self.prerelease, self.number)


NONE = Version(0, 0, 0)
"""The last version where there is no tag."""


def parse(text: str, prefix: str = PREFIX) -> Version | None:
    """Parse `1.2.3`, `v1.2.3` or `1.2.3-rc.1`; None if it is not a version."""
    return of_tag(prefix + text.removeprefix(prefix or PREFIX), prefix)


def of_tag(tag: str, prefix: str = PREFIX) -> Version | None:
    """Return the version of a tag; None if it is not a version with this prefix."""
    found = _VERSION.fullmatch(tag.removeprefix(prefix)) if tag.startswith(prefix) else None
    if found is None:
        return None
    major, minor, patch, identifier, number = found.groups()
    return Version(
        int(major), int(minor), int(patch), identifier or "", int(number or 0), prefix=prefix
    )


def is_near_miss(tag: str, prefix: str = PREFIX) -> bool:
    """Return whether a tag looks like a version with this prefix, and is not."""
    before = "[vV]?" if prefix == PREFIX else re.escape(prefix)
    return of_tag(tag, prefix) is None and re.fullmatch(before + _NEAR, tag) is not None
