"""The model of `scan`: which vulnerabilities fail a scan, and which are accepted.

An acceptance has an end date: the day after it, the vulnerability fails the scan again. It is in
the stack file, so it was committed and can be reviewed.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lapwing.stack.fields import Date, NonEmpty, StrictModel

Severity = Literal["low", "medium", "high", "critical"]


class Accepted(StrictModel):
    """A vulnerability that does not fail the scan until a date."""

    id: NonEmpty = Field(
        description="The id of the vulnerability, or one of its aliases.",
        examples=["CVE-2024-34069", "GHSA-2g68-c3qc-8985"],
    )
    package: NonEmpty | None = Field(
        None, description="Accept it in this package only. Default: in every package."
    )
    until: Date = Field(
        description="The last day (UTC) on which it is accepted.",
        examples=["2027-03-31"],
    )
    reason: NonEmpty = Field(description="Why it is accepted.")


class Scan(StrictModel):
    """Settings of the vulnerability scan of `lapwing ship`, and of images before a push."""

    fail_on: Severity = Field("critical", description="The lowest severity that fails the scan.")
    accept: list[Accepted] = Field(
        default_factory=list, description="Vulnerabilities that do not fail the scan until a date."
    )
