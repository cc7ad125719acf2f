"""The branches that releases are made from, and which versions each of them may release.

| branch | versions |
|---|---|
| `main` | final versions, the next after the last one in its history |
| `{name: next, prerelease: rc}` | 1.3.0-rc.1, -rc.2, ...; another branch then releases 1.3.0 |
| `1.x`, `{name: old, range: 1.2.x}` | final ones in the range, lower than those of newer branches |

Source: semantic-release's "Workflow configuration", whose `branches` this follows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lapwing.errors import ReleaseError
from lapwing.release.version import Version
from lapwing.stack.delivery import Branch
from lapwing.stack.release_rules import prerelease_of, range_of


@dataclass(frozen=True, slots=True)
class Line:
    """A release branch; a maintenance branch has versions from `low` to below `high`."""

    branch: str
    prerelease: str = ""
    low: Version | None = None
    high: Version | None = None

    def counts(self, version: Version) -> bool:
        """Return whether a version in the history of the branch is one that it continues."""
        return version.prerelease in ("", self.prerelease)

    def check(self, following: Version, previous: Version, others: Iterable[Version]) -> None:
        """Check that the next version is in the range. Raises ReleaseError.

        `others` are all versions; the final ones above `previous` are of newer branches.
        """
        if self.low is None or self.high is None:
            return
        if not self.low <= following < self.high:
            raise ReleaseError(
                f"The next version, {following}, is outside of the range of branch "
                f"`{self.branch}`: from {self.low} to below {self.high}.",
                hint="Release this change from another branch, and revert it in this one.",
            )
        newer = min((v for v in others if not v.prerelease and v > previous), default=None)
        if newer is not None and following >= newer:
            raise ReleaseError(
                f"The next version of branch `{self.branch}`, {following}, is not lower than "
                f"{newer.tag}, which was released from a newer branch.",
                hint=f"Only versions between {previous} and {newer} are free here: release this "
                "change from the newer branch.",
            )


def line_of(branch: Branch) -> Line:
    """Return the rules of a branch in the file, which was checked."""
    limits = range_of(branch)
    low, high = (Version(*limits[0]), Version(*limits[1])) if limits else (None, None)
    return Line(branch.name, prerelease_of(branch), low, high)
