"""Review a stack: over-engineering, risks, over-provisioning."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

from lapwing.cost.book import Book
from lapwing.cost.estimate import estimate
from lapwing.inventory.model import Inventory
from lapwing.inventory.read import read
from lapwing.review.finding import Case, Finding, Rehearsals, Subject
from lapwing.review.overkill import overkill
from lapwing.review.risks import risks
from lapwing.review.sizing import Measurements, sizing
from lapwing.stack.load import LoadedStack
from lapwing.stack.source import Source


def review(
    stacks: Sequence[LoadedStack],
    source: Source,
    book: Book,
    measured: Measurements,
    today: date | None = None,
    rehearsals: Rehearsals | None = None,
) -> list[Finding]:
    """Return all findings about environments of one stack file, the most severe first."""
    subject = Subject(stacks, source)
    day = today or datetime.now(tz=UTC).date()
    cases = {s.environment: _case(s, book, day, rehearsals or {}) for s in stacks}
    found = [
        *risks(subject, cases),
        *sizing(subject, measured, lambda loaded: estimate(read([loaded]), book)),
        *overkill(subject, estimate(read(stacks), book)),
    ]
    return sorted(_merged(found), key=lambda finding: -finding.severity)


def _case(loaded: LoadedStack, book: Book, today: date, rehearsals: Rehearsals) -> Case:
    found = read([loaded])
    facts = found.projects[0].facts if found.projects else Inventory()
    cost = estimate(found, book, today=today)
    return Case(loaded, found.environments[0], facts, cost, today, rehearsals)


def _merged(found: Sequence[Finding]) -> list[Finding]:
    """Merge equal findings of several environments, with the sum of their savings."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for each in found:
        key = (each.rule, each.severity, each.evidence, each.advice)
        groups.setdefault(key, []).append(each)
    result = []
    for same in groups.values():
        known = [f.saves for f in same if f.saves is not None]
        saves = sum(known, Decimal(0)) if len(known) == len(same) else None
        environments = ", ".join(f.environment for f in same)
        result.append(dataclasses.replace(same[0], environment=environments, saves=saves))
    return result
