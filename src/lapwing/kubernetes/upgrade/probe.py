"""Whether a migration is pending, from what the new version did when it was started once. Pure.

Nothing is asked of the database: the program itself knows. Fleet's server compares its migrations
with those in the database before it writes anything; where some are missing it prints so and exits
with 1. Source: Fleet, cmd/fleet/serve.go (fleet-v4.90), the three answers of the migration status.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

MISSING = "missing migrations"
EMPTY = "database is not initialized"


class Verdict(StrEnum):
    """What a probe tells."""

    CURRENT = "current"
    EMPTY = "empty"
    """The database has no schema at all: a first installation, with nothing to lose."""
    PENDING = "pending"
    BROKEN = "broken"
    """It did not start, and not because of a migration."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What the new version did: whether it was healthy, else the status it exited with (None: it
    neither became healthy nor ended in time), and the end of its output."""

    healthy: bool
    exit_status: int | None
    output: str


def verdict(probe: Probe) -> Verdict:
    """What follows. A version that was healthy has what it needs; else its own words decide."""
    if probe.healthy:
        return Verdict.CURRENT
    said = probe.output.lower()
    if probe.exit_status in (None, 0):
        return Verdict.BROKEN
    if MISSING in said:
        return Verdict.PENDING
    return Verdict.EMPTY if EMPTY in said else Verdict.BROKEN


def last_lines(probe: Probe, count: int = 15) -> str:
    """The end of the output, for an error."""
    return "\n".join(probe.output.rstrip().split("\n")[-count:])
