"""What a change of the stack file does to the bill, line by line. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from lapwing.cost.lines import Estimate, Line


@dataclass(frozen=True, slots=True)
class Change:
    """One line before and after; None where it is not there."""

    environment: str
    item: str
    before: Line | None
    after: Line | None

    @property
    def low(self) -> Decimal:
        """What the month costs more at the least."""
        return _amount(self.after, "low") - _amount(self.before, "low")

    @property
    def high(self) -> Decimal:
        """What the month costs more at the most."""
        return _amount(self.after, "high") - _amount(self.before, "high")


def difference(before: Estimate, after: Estimate) -> list[Change]:
    """The lines that are new, gone, or cost something else, in the order of the new estimate."""
    old = {(line.environment, line.item): line for line in before.lines}
    new = {(line.environment, line.item): line for line in after.lines}
    keys = [*new, *(k for k in old if k not in new)]
    changes = [Change(*key, old.get(key), new.get(key)) for key in keys]
    return [c for c in changes if _facts(c.before) != _facts(c.after)]


def _amount(line: Line | None, end: str) -> Decimal:
    amount: Decimal | None = getattr(line, end) if line is not None else None
    return amount if amount is not None else Decimal("0.00")


def _facts(line: Line | None) -> object:
    if line is None:
        return None
    return (line.low, line.high, line.quantity, line.quantity_high)
