"""The review: every finding about a stack, the gravest first. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from lapwing.cost.book import Book
from lapwing.cost.estimate import estimate
from lapwing.errors import UsageError
from lapwing.review.finding import Finding, Subject
from lapwing.review.overkill import overkill
from lapwing.review.risks import risks
from lapwing.review.sizing import Measured, sizing
from lapwing.stack.load import LoadedStack
from lapwing.stack.source import Source

Measurements = Mapping[str, Mapping[str, Measured]]


def review(
    stacks: Sequence[LoadedStack], source: Source, book: Book, measured: Measurements
) -> list[Finding]:
    """All findings about a stack in some environments, read from one file."""
    subject = Subject(stacks, source)
    costs = {s.environment: estimate([s], book) for s in stacks}
    found = [
        *risks(subject, costs),
        *sizing(subject, measured, lambda loaded: estimate([loaded], book)),
        *overkill(subject, estimate(stacks, book)),
    ]
    return sorted(_merged(found), key=lambda finding: -finding.severity)


def _merged(found: Sequence[Finding]) -> list[Finding]:
    """Findings that say the same of several environments as one, with what it saves in all."""
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


def as_data(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Findings for programs."""
    return [
        {
            "rule": f.rule,
            "severity": str(f.severity),
            "environment": f.environment,
            "evidence": f.evidence,
            "advice": f.advice,
            "saves": float(f.saves) if f.saves is not None else None,
        }
        for f in findings
    ]


def measurements(data: object) -> Measurements:
    """Measurements from JSON: `{environment: {service: {"cpu": cores, "memory": bytes, "hours":
    hours, "requests": per second}}}`. Raises UsageError with the path of what is wrong."""
    if not isinstance(data, dict):
        raise _wrong("the file", "a mapping of environments")
    result: dict[str, dict[str, Measured]] = {}
    for environment, services in data.items():
        if not isinstance(services, dict):
            raise _wrong(str(environment), "a mapping of services")
        result[environment] = {
            name: _measured(f"{environment}.{name}", record) for name, record in services.items()
        }
    return result


def _measured(path: str, record: object) -> Measured:
    if not isinstance(record, dict):
        raise _wrong(path, "a mapping with `cpu`, `memory` and `hours`")
    cpu, memory, hours = (_number(path, record, key) for key in ("cpu", "memory", "hours"))
    rate = _number(path, record, "requests") if "requests" in record else None
    return Measured(cpu, int(memory), hours, rate)


def _number(path: str, record: dict[str, Any], key: str) -> float:
    value = record.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= float(value) < 1e15:  # type: ignore[arg-type]
        raise _wrong(f"{path}.{key}", "a number that is not negative")
    return float(value)  # type: ignore[arg-type]


def _wrong(path: str, expected: str) -> UsageError:
    return UsageError(
        f"The measurements are not right: {path} has to be {expected}.",
        hint='They look like {"production": {"api": {"cpu": 0.12, "memory": 200000000, '
        '"hours": 72}}}.',
    )
