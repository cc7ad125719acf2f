"""Lines of an estimate and their sums. Pure.

A line is a quantity of something times its list price, rounded to the cent; a total is the sum of
its lines and nothing else. `low` is what the month costs at the least (replicas at their minimum),
`high` at the most. A line without a price has neither: it is unknown, it does not count, and the
total says how many there are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

from lapwing.cost.book import CURRENCY, HOURS, Book, Price

CENT = Decimal("0.01")
ZERO = Decimal("0.00")


@dataclass(frozen=True, slots=True)
class Place:
    """Who pays a line: the environment, its project, and the region whose prices hold."""

    environment: str
    project: str
    region: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `part` is the service or resource it belongs to, or what kind of thing it is.
    Quantities are for a month, in `unit`; None where nobody stated one."""

    environment: str
    project: str
    part: str
    item: str
    quantity: Decimal | None
    quantity_high: Decimal | None
    unit: str
    unit_price: Decimal | None
    low: Decimal | None
    high: Decimal | None
    source: str | None
    date: str | None
    kind: str | None = None
    note: str = ""

    @property
    def known(self) -> bool:
        """Whether there is a price, so that the line counts."""
        return self.low is not None


@dataclass(frozen=True, slots=True)
class Estimate:
    """What environments cost a month. `unstated` are quantities that nobody stated, so that they
    are not counted; `notes` is what else a reader has to know."""

    environment: str
    lines: tuple[Line, ...]
    unstated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    currency: str = CURRENCY

    @property
    def low(self) -> Decimal:
        """The sum of the lines at the least."""
        return total(line.low for line in self.lines)

    @property
    def high(self) -> Decimal:
        """The sum of the lines at the most."""
        return total(line.high for line in self.lines)

    @property
    def unknown(self) -> tuple[Line, ...]:
        """The lines that have no price."""
        return tuple(line for line in self.lines if not line.known)

    def by(self, key: str) -> dict[str, tuple[Decimal, Decimal]]:
        """Low and high for each `environment`, `project` or `part`, in the order of the lines."""
        groups: dict[str, list[Line]] = {}
        for line in self.lines:
            groups.setdefault(getattr(line, key), []).append(line)
        return {
            name: (total(x.low for x in lines), total(x.high for x in lines))
            for name, lines in groups.items()
        }


def total(amounts: Iterable[Decimal | None]) -> Decimal:
    """The sum of what is known."""
    return sum((a for a in amounts if a is not None), ZERO)


def cents(amount: Decimal) -> Decimal:
    """An amount rounded to the cent, as a bill does."""
    return amount.quantize(CENT, ROUND_HALF_UP)


@dataclass(slots=True)
class Ledger:
    """Collects lines, priced from a book."""

    book: Book
    lines: list[Line] = field(default_factory=list)

    def add(
        self,
        place: Place,
        part: str,
        item: str,
        price: str,
        quantity: tuple[Decimal, Decimal],
        note: str = "",
    ) -> None:
        """Add a line for a quantity (low, high) of what the book calls `price`."""
        found = self.book.find(price, place.region)
        if found is None or not found.counted:
            self.lines.append(self._unknown(place, part, item, price, quantity, note, found))
            return
        low, high = (cents(max(q - found.free, Decimal(0)) * found.price) for q in quantity)
        self.lines.append(
            Line(
                place.environment,
                place.project,
                part,
                item,
                *quantity,
                found.unit,
                found.price,
                low,
                high,
                found.source,
                found.date,
                found.kind,
                "; ".join(n for n in (note, found.note) if n),
            )
        )

    def growth(
        self, place: Place, part: str, item: str, prices: tuple[str, str], note: str
    ) -> None:
        """Add what a larger size costs on top of the one that is counted already: nothing at the
        least, the whole month at the most."""
        base, larger = (self.book.find(p, place.region) for p in prices)
        if base is None or larger is None:
            self.lines.append(
                self._unknown(place, part, item, prices[1], (ZERO, HOURS), note, larger)
            )
            return
        more = max(larger.price - base.price, ZERO)
        self.lines.append(
            Line(
                place.environment, place.project, part, item, ZERO, HOURS, larger.unit, more,
                ZERO, cents(more * HOURS), larger.source, larger.date, larger.kind, note,
            )
        )  # fmt: skip

    def unpriced(
        self,
        place: Place,
        part: str,
        item: str,
        unit: str,
        note: str,
        quantity: Decimal | None = None,
    ) -> None:
        """Add a line for something that costs, but has no price in the book."""
        self.lines.append(
            Line(
                place.environment, place.project, part, item,
                quantity, quantity, unit, None, None, None, None, None, None, note,
            )
        )  # fmt: skip

    def credit(self, place: Place, item: str, price: Price, amount: Decimal) -> None:
        """Add what is taken off, at most `price` and not more than `amount`."""
        off = -min(price.price, amount)
        self.lines.append(
            Line(
                place.environment, place.project, "cluster", item,
                Decimal(1), Decimal(1), price.unit, off, off, off,
                price.source, price.date, price.kind, price.note,
            )
        )  # fmt: skip

    def _unknown(
        self,
        place: Place,
        part: str,
        item: str,
        price: str,
        quantity: tuple[Decimal, Decimal],
        note: str,
        found: Price | None,
    ) -> Line:
        if found is not None and not found.counted:
            why = f"one reading of {found.price}, too uncertain to count"
        elif regions := self.book.regions(price):
            why = f"no price for {place.region}; there is one for {', '.join(regions)}"
        else:
            why = "no price is recorded"
        unit = _UNITS.get(price, "cluster-hour")
        return Line(
            place.environment, place.project, part, item, *quantity, unit,
            None, None, None, None, None, None, "; ".join(n for n in (note, why) if n),
        )  # fmt: skip


_UNITS = {
    "autopilot.cpu": "vCPU-hour", "autopilot.memory": "GiB-hour", "autopilot.storage": "GiB-hour",
    "autopilot.spot.cpu": "vCPU-hour", "autopilot.spot.memory": "GiB-hour",
    "machine.cpu": "vCPU-hour", "machine.memory": "GiB-hour", "machine.address": "address-hour",
    "balancer.received": "GiB", "balancer.sent": "GiB", "internet.sent": "GiB",
    "disk.balanced": "GiB-month",
}  # fmt: skip
"""Units of items whose price depends on the region, for where there is none."""
