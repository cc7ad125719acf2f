"""Lines of an estimate, their totals, and the difference between two estimates.

A line is a quantity times its list price, rounded to the cent; a total is the sum of its lines and
nothing else. `low` is the monthly cost with the minimum number of replicas, `high` with the
maximum. `expected` is halfway between them: an assumption, because no load is measured here. A line
without a price has neither: it is not in the total, and the total states how many such lines there
are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

from lapwing.cost.book import CURRENCY, HOURS, Book, Price

CENT = Decimal("0.01")
ZERO = Decimal("0.00")
Range = tuple[Decimal, Decimal]
"""Low and high."""


@dataclass(frozen=True, slots=True)
class BillingScope:
    """What a line is billed to: the environment, its project, and the region of the prices."""

    environment: str
    project: str
    region: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the monthly bill.

    `part` is the service or resource it belongs to, or a category. Quantities are in `unit`; None
    if unknown.
    """

    environment: str
    project: str
    part: str
    item: str
    quantity: Decimal | None
    quantity_high: Decimal | None
    unit: str
    unit_price: Decimal | None = None
    low: Decimal | None = None
    high: Decimal | None = None
    source: str | None = None
    date: str | None = None
    kind: str | None = None
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a price, so that the line counts."""
        return self.low is not None


@dataclass(frozen=True, slots=True)
class Estimate:
    """The monthly cost of environments.

    `unstated` are usage settings that are not set, so that they are not counted; `notes` are the
    assumptions.
    """

    environment: str
    lines: tuple[Line, ...]
    unstated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    currency: str = CURRENCY

    @property
    def low(self) -> Decimal:
        """The sum of the low amounts."""
        return total(line.low for line in self.lines)

    @property
    def high(self) -> Decimal:
        """The sum of the high amounts."""
        return total(line.high for line in self.lines)

    @property
    def expected(self) -> Decimal | None:
        """The amount halfway between low and high, or None if nothing has a price."""
        if self.lines and len(self.unknown) == len(self.lines):
            return None
        return cents((self.low + self.high) / 2)

    @property
    def unknown(self) -> tuple[Line, ...]:
        """The lines without a price."""
        return tuple(line for line in self.lines if not line.known)

    def by(self, key: str) -> dict[str, Range]:
        """Sum low and high for each `environment`, `project` or `part`, in the order of lines.

        What runs outside of a cloud has no project.
        """
        groups: dict[str, list[Line]] = {}
        for line in self.lines:
            groups.setdefault(getattr(line, key), []).append(line)
        return {
            name: (total(x.low for x in lines), total(x.high for x in lines))
            for name, lines in groups.items()
            if name
        }


def total(amounts: Iterable[Decimal | None]) -> Decimal:
    """Sum the known amounts."""
    return sum((a for a in amounts if a is not None), ZERO)


def cents(amount: Decimal) -> Decimal:
    """Round an amount to the cent."""
    return amount.quantize(CENT, ROUND_HALF_UP)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Collects lines of one billing scope, with prices from a book."""

    book: Book
    scope: BillingScope
    lines: list[Line] = field(default_factory=list)

    def scoped(self, scope: BillingScope) -> Ledger:
        """Return a ledger for another scope that adds to the same lines."""
        return dataclasses.replace(self, scope=scope)

    def price(self, item: str) -> Price | None:
        """Return the price of an item in the region, if there is one."""
        return self.book.find(item, self.scope.region)

    def add(
        self, part: str, item: str, price: str, quantity: Decimal | Range, note: str = ""
    ) -> None:
        """Add a line for a quantity, or low and high quantities, of the book's item `price`."""
        both = quantity if isinstance(quantity, tuple) else (quantity, quantity)
        found = self.price(price)
        if found is None or not found.counted:
            self._add_unknown(part, item, price, both, note)
            return
        low, high = (cents(max(q - found.free, ZERO) * found.price) for q in both)
        note = "; ".join(n for n in (note, found.note) if n)
        self._append(part, item, both, found, (low, high), note)

    def add_growth(self, part: str, item: str, prices: tuple[str, str], note: str) -> None:
        """Add what a larger size costs on top of the counted one: for no hour, or for all."""
        base, larger = (self.price(p) for p in prices)
        if base is None or larger is None:
            self._add_unknown(part, item, prices[1], (ZERO, HOURS), note)
            return
        more = dataclasses.replace(larger, price=max(larger.price - base.price, ZERO))
        self._append(part, item, (ZERO, HOURS), more, (ZERO, cents(more.price * HOURS)), note)

    def add_credit(self, item: str, price: Price, limit: Decimal) -> None:
        """Add a credit: `price`, but not more than `limit`."""
        off, one = -min(price.price, limit), Decimal(1)
        credit = dataclasses.replace(price, price=off)
        self._append("cluster", item, (one, one), credit, (off, off), price.note)

    def add_unpriced(
        self, part: str, item: str, unit: str, note: str, quantity: Decimal | None = None
    ) -> None:
        """Add a line for something that is billed, but has no price in the book."""
        where = (self.scope.environment, self.scope.project, part, item)
        self.lines.append(Line(*where, quantity, quantity, unit, note=note))

    def _append(
        self, part: str, item: str, quantity: Range, price: Price, amounts: Range, note: str
    ) -> None:
        where = (self.scope.environment, self.scope.project, part, item)
        source = (price.source, price.date, price.kind)
        self.lines.append(Line(*where, *quantity, price.unit, price.price, *amounts, *source, note))

    def _add_unknown(self, part: str, item: str, price: str, quantity: Range, note: str) -> None:
        found = self.price(price)
        if found is not None and not found.counted:
            reason = f"the only price found, {found.price}, is from one report and is not counted"
        elif regions := self.book.regions(price):
            reason = f"no price for {self.scope.region}; there is one for {', '.join(regions)}"
        else:
            reason = "no price is recorded"
        note = "; ".join(n for n in (note, reason) if n)
        where = (self.scope.environment, self.scope.project, part, item)
        self.lines.append(Line(*where, *quantity, _UNITS.get(price, "cluster-hour"), note=note))


_UNITS = {
    "autopilot.cpu": "vCPU-hour", "autopilot.memory": "GiB-hour", "autopilot.storage": "GiB-hour",
    "autopilot.spot.cpu": "vCPU-hour", "autopilot.spot.memory": "GiB-hour",
    "machine.cpu": "vCPU-hour", "machine.memory": "GiB-hour", "machine.address": "address-hour",
    "balancer.received": "GiB", "balancer.sent": "GiB", "internet.sent": "GiB",
    "disk.balanced": "GiB-month",
}  # fmt: skip
"""Units of items with regional prices, for regions without a price."""


@dataclass(frozen=True, slots=True)
class Change:
    """A line before and after a change of the stack file; None if it did not exist."""

    environment: str
    item: str
    before: Line | None
    after: Line | None

    @property
    def low(self) -> Decimal:
        """The change of the low amount."""
        return self._amount(self.after, "low") - self._amount(self.before, "low")

    @property
    def high(self) -> Decimal:
        """The change of the high amount."""
        return self._amount(self.after, "high") - self._amount(self.before, "high")

    @staticmethod
    def _amount(line: Line | None, end: str) -> Decimal:
        amount: Decimal | None = getattr(line, end) if line is not None else None
        return ZERO if amount is None else amount


def changed_lines(before: Estimate, after: Estimate) -> list[Change]:
    """Return the lines that were added, removed or changed, in the order of the new estimate."""
    old = {(line.environment, line.item): line for line in before.lines}
    new = {(line.environment, line.item): line for line in after.lines}
    keys = [*new, *(k for k in old if k not in new)]
    changes = [Change(*key, old.get(key), new.get(key)) for key in keys]
    return [c for c in changes if _figures(c.before) != _figures(c.after)]


def _figures(line: Line | None) -> object:
    return line and (line.low, line.high, line.quantity, line.quantity_high)
