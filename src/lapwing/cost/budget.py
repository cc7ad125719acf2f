"""Budgets of environments, and the estimate that each is compared with."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lapwing.cost.estimate import SHARED
from lapwing.cost.ledger import Estimate
from lapwing.stack.load import LoadedStack


@dataclass(frozen=True, slots=True)
class Budget:
    """The monthly budget of an environment in US dollars.

    `estimate` is what the environment costs together with what all environments share.
    """

    environment: str
    amount: float
    estimate: Estimate

    @property
    def is_exceeded(self) -> bool:
        """Whether the expected amount of the lines that have a price exceeds the budget."""
        return float(self.estimate.expected or 0) > self.amount

    @property
    def remark(self) -> str | None:
        """What to know about the budget; None if even the high amount is within it."""
        if self.is_exceeded:
            return f"The estimate of {self.environment} is over its budget of {self.amount:,.2f}."
        if self.estimate.unknown:
            return (
                f"The budget of {self.environment}, {self.amount:,.2f}, cannot be checked: some "
                "lines have no price."
            )
        if float(self.estimate.high) > self.amount:
            return (
                f"The estimate of {self.environment} may be over its budget of {self.amount:,.2f}."
            )
        return None

    @property
    def failure(self) -> str | None:
        """Why a check of the budget fails; None if it does not."""
        if self.is_exceeded:
            return (
                f"The expected cost of {self.environment}, {self.estimate.expected:,.2f} US "
                f"dollars per month, is over its budget of {self.amount:,.2f}."
            )
        if self.estimate.unknown:
            return (
                f"The budget of {self.environment} cannot be checked: no price is recorded for "
                f"{self.estimate.unknown_items}."
            )
        return None


def budgets(stacks: Sequence[LoadedStack], now: Estimate) -> Iterator[Budget]:
    """Yield the budget of each environment that has one. `now` is the estimate of all."""
    for loaded in stacks:
        if loaded.settings.budget is not None:
            names = (loaded.environment, SHARED)
            lines = tuple(line for line in now.lines if line.environment in names)
            estimate = dataclasses.replace(now, lines=lines)
            yield Budget(loaded.environment, loaded.settings.budget, estimate)
