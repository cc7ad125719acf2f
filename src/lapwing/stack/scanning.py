"""What people write of scans for known vulnerabilities: from which severity a finding stops what is
shipped, and the findings that are accepted all the same.

An acceptance is a decision with an end: it says why, and the day after its last day the finding
counts again. It is in the stack file, so a commit made it, and somebody has read that commit.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field

from lapwing.stack import quantities
from lapwing.stack.breach import Breach
from lapwing.stack.parts import Filled, Part

if TYPE_CHECKING:
    from lapwing.stack.model import Stack

DAY = {"type": "string", "format": "date", "pattern": r"^\d{4}-\d{2}-\d{2}$"}
Day = Annotated[datetime.date, BeforeValidator(quantities.day), Field(json_schema_extra={**DAY})]
FailOn = Literal["low", "medium", "high", "critical"]


class Accepted(Part):
    """A finding that may be shipped until a day."""

    id: Filled = Field(
        description="The vulnerability, by any of its names.",
        examples=["CVE-2024-34069", "GHSA-2g68-c3qc-8985"],
    )
    package: Filled | None = Field(
        None, description="Only in this package. Default: wherever it is found."
    )
    until: Day = Field(
        description="The last day on which it is accepted, by UTC. Then the finding counts again.",
        examples=["2027-03-31"],
    )
    reason: Filled = Field(description="Why, for whoever reads it next.")


class Scan(Part):
    """What `lapwing ship` makes of a scan for known vulnerabilities."""

    fail_on: FailOn = Field(
        "critical", description="The severity from which a finding stops what is shipped."
    )
    accept: list[Accepted] = Field(
        default_factory=list, description="Findings that may be shipped until a day."
    )


def acceptances_differ(stack: Stack, _: object = None) -> Iterator[Breach]:
    """A finding of a scan is accepted once, and for a reason in words."""
    seen: set[tuple[str, str | None]] = set()
    for index, entry in enumerate(stack.scan.accept):
        what = (entry.id.upper(), entry.package)
        if what in seen:
            message = f"`{entry.id}` is accepted twice."
            yield Breach(message, ("scan", "accept", index, "id"), "Keep one of them.")
        seen.add(what)
        if not entry.reason.strip():
            path = ("scan", "accept", index, "reason")
            yield Breach("The reason is blank.", path, "Say why it may be shipped.")
