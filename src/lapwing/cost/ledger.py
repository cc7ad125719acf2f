"""Lines of an estimate, their totals, and the difference between two estimates.

A line is a quantity times its list price, rounded to the cent; a total is the sum of its lines and
nothing else. `low` is the monthly cost with the minimum number of replicas, `high` with the
maximum, `expected` what the assumptions of the estimate say. A line without a price has none of
them: it is not in the total, which is then only a lower bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal

from lapwing.cost.book import CURRENCY, HOURS, Book, Price

CENT = Decimal("0.01")
ZERO = Decimal("0.00")
Range = tuple[Decimal, Decimal]
"""Low and high."""
Quantity = tuple[Decimal, Decimal, Decimal]
"""Low, expected and high."""


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
    if unknown. `unit_price_high` is set where only bounds of the price are known. `price` is the
    item in the price book.
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
    expected: Decimal | None = None
    unit_price_high: Decimal | None = None
    price: str = ""

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
        """The sum of the expected amounts, or None if nothing has a price."""
        if self.lines and len(self.unknown) == len(self.lines):
            return None
        return total(line.expected for line in self.lines)

    @property
    def unknown(self) -> tuple[Line, ...]:
        """The lines without a price."""
        return tuple(line for line in self.lines if not line.known)

    @property
    def unknown_items(self) -> str:
        """The items without a price, each once."""
        return ", ".join(dict.fromkeys(line.item for line in self.unknown))

    def by(self, key: str) -> dict[str, Quantity]:
        """Sum the amounts for each `environment`, `project` or `part`, in the order of lines.

        What runs outside of a cloud has no project.
        """
        groups: dict[str, list[Line]] = {}
        for line in self.lines:
            groups.setdefault(getattr(line, key), []).append(line)
        return {
            name: (
                total(x.low for x in lines),
                total(x.expected for x in lines),
                total(x.high for x in lines),
            )
            for name, lines in groups.items()
            if name
        }


def total(amounts: Iterable[Decimal | None]) -> Decimal:
    """Sum the known amounts."""
    return sum((a for a in amounts if a is not None), ZERO)


def cents(amount: Decimal) -> Decimal:
    """Round an amount to the cent."""
    return amount.quantize(CENT, ROUND_HALF_UP)


def between(low: Decimal, high: Decimal) -> Quantity:
    """Return a quantity that is expected to be halfway between low and high."""
    return low, (low + high) / 2, high


@dataclass(frozen=True, slots=True)
class Ledger:
    """Collects lines of one billing scope, with prices from a book."""

    book: Book
    scope: BillingScope
    lines: list[Line] = field(default_factory=list)
    today: date = field(default_factory=lambda: datetime.now(tz=UTC).date())
    """The day of the estimate. Extended support is added for versions for which it has begun."""

    def scoped(self, scope: BillingScope) -> Ledger:
        """Return a ledger for another scope that adds to the same lines."""
        return dataclasses.replace(self, scope=scope)

    def price(self, item: str) -> Price | None:
        """Return the price of an item in the region, if there is one."""
        return self.book.find(item, self.scope.region)

    def add(
        self, part: str, item: str, price: str, quantity: Decimal | Quantity, note: str = ""
    ) -> None:
        """Add a line for a quantity of the book's item `price`."""
        found = self.price(price)
        if found is None:
            low = quantity[0] if isinstance(quantity, tuple) else quantity
            note = "; ".join(n for n in (note, "no price is recorded") if n)
            self.add_unpriced(part, item, "unit", note, low)
            return
        self.add_price(part, item, found, quantity, note)

    def add_price(
        self, part: str, item: str, price: Price, quantity: Decimal | Quantity, note: str = ""
    ) -> None:
        """Add a line for a quantity at a price."""
        low, expected, high = quantity if isinstance(quantity, tuple) else (quantity,) * 3
        amounts = (
            cents(price.cost(low)[0]),
            cents(sum(price.cost(expected), ZERO) / 2),
            cents(price.cost(high)[1]),
        )
        note = "; ".join(n for n in (note, price.note) if n)
        self._append(part, item, (low, high), price, amounts, note)

    def add_growth(self, part: str, item: str, prices: tuple[str, str], note: str) -> None:
        """Add what a larger size costs on top of the counted one: for no hour, or for all."""
        base, larger = (self.price(p) for p in prices)
        if base is None or larger is None:
            self.add_unpriced(part, item, "cluster-hour", f"{note}; no price is recorded")
            return
        more = max(larger.high - base.low, ZERO)
        tier = dataclasses.replace(larger.tiers[0], low=more, high=more)
        price = dataclasses.replace(larger, tiers=(tier,))
        self.add_price(part, item, price, (ZERO, ZERO, HOURS), note)

    def add_credit(self, item: str, price: Price, limit: Decimal) -> None:
        """Add a credit: `price`, but not more than `limit`."""
        off, one = -min(price.low, limit), Decimal(1)
        tier = dataclasses.replace(price.tiers[0], low=off, high=off)
        credit = dataclasses.replace(price, item="gke.cluster", tiers=(tier,))
        self._append("cluster", item, (one, one), credit, (off, off, off), price.note)

    def add_unpriced(
        self, part: str, item: str, unit: str, note: str, quantity: Decimal | None = None
    ) -> None:
        """Add a line for something that is billed, but has no price in the book."""
        where = (self.scope.environment, self.scope.project, part, item)
        self.lines.append(Line(*where, quantity, quantity, unit, note=note))

    def _append(
        self, part: str, item: str, quantity: Range, price: Price, amounts: Quantity, note: str
    ) -> None:
        low, expected, high = amounts
        source = price.source
        self.lines.append(
            Line(
                self.scope.environment, self.scope.project, part, item, *quantity, price.unit,
                price.low, low, high, source.text, source.date, source.kind, note,
                expected=expected,
                unit_price_high=price.high if price.high != price.low else None,
                price=price.item,
            )
        )  # fmt: skip


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
