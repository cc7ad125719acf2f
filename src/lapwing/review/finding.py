"""Findings of a review, their positions in the stack file, and what a rule is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import IntEnum
from typing import Any

from lapwing.cost.ledger import Estimate
from lapwing.inventory.model import Environment, Inventory
from lapwing.stack.load import LoadedStack
from lapwing.stack.source import KeyPath, Source


class Severity(IntEnum):
    """The severity of a finding.

    INFO needs no action now; WARNING costs money or effort; CRITICAL can lose data, secrets or
    money.
    """

    INFO = 1
    WARNING = 2
    CRITICAL = 3

    def __str__(self) -> str:
        """Return the name in lower case, as in JSON."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding.

    `evidence` is what was found and where (`file:line`), `advice` what to do, `saves` the saving in
    dollars per month if known, negative if the advice costs.
    """

    rule: str
    severity: Severity
    environment: str
    evidence: str
    advice: str
    saves: Decimal | None = None

    def as_data(self) -> dict[str, Any]:
        """Convert to JSON data."""
        return {
            "rule": self.rule,
            "severity": str(self.severity),
            "environment": self.environment,
            "evidence": self.evidence,
            "advice": self.advice,
            "saves": float(self.saves) if self.saves is not None else None,
        }


@dataclass(frozen=True, slots=True)
class Subject:
    """The stack in the environments under review, and their file."""

    stacks: Sequence[LoadedStack]
    source: Source

    def position(self, environment: str, path: KeyPath) -> str:
        """Return `lapwing.yaml:12` for a path of a service, a resource or an environment setting.

        The environment's overlay is preferred to the base. A path that is not in the file has the
        position of its nearest parent.
        """
        overlay = ("environments", environment, *path)
        fallback = path if path[0] in ("services", "resources") else overlay
        found = next((p for p in (overlay, path) if p in self.source.positions), fallback)
        where = self.source.where(found, key=True)
        return f"{where.file.name}:{where.line}"


@dataclass(frozen=True, slots=True)
class Risk:
    """A risk: its rule, the path in the file, the evidence, and the advice."""

    rule: str
    path: KeyPath
    evidence: str
    advice: str
    severity: Severity = Severity.WARNING


Rehearsals = Mapping[str, date | None]
"""When a backup was last restored or verified, by environment with backups; None if never."""


@dataclass(frozen=True, slots=True)
class Case:
    """One environment under review: what is written, what is rendered of it, and its cost."""

    loaded: LoadedStack
    environment: Environment
    project: Inventory
    """The facts of its cloud project; empty outside of a cloud."""
    cost: Estimate
    today: date
    rehearsals: Rehearsals


Rule = Callable[[Case], Iterator[Risk]]
