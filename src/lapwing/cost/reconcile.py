"""Compare an estimate with an export of the real bill, line by line.

The bill is Google Cloud's: the CSV of the console's cost table, or of a query of the export to
BigQuery. A row belongs to an item of the price book by its service and SKU. All rows of an item are
compared with all lines of it, because the bill does not know environments.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from decimal import Decimal

from lapwing.cost.book import CURRENCY, Book, Price
from lapwing.cost.ledger import ZERO, Estimate, Line, cents, total
from lapwing.errors import UsageError

_AMOUNT = re.compile(r"-?([0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,2})?|[0-9]{1,3}(,[0-9]{3})+\.[0-9]+)")
"""A number as in an export to BigQuery (`70.25`, `1.5E-7`), or in the console (`1,006.25`)."""
_MAX_AMOUNT = Decimal("1e12")
_DOLLARS = ("$", "US$", CURRENCY)


@dataclass(frozen=True, slots=True)
class BillRow:
    """One row of the bill: its cost with all credits, in US dollars."""

    service: str
    sku: str
    cost: Decimal


@dataclass(frozen=True, slots=True)
class Comparison:
    """An item as estimated and as billed; None on the side where it does not exist."""

    item: str
    low: Decimal | None
    expected: Decimal | None
    high: Decimal | None
    billed: Decimal | None
    note: str = ""

    @property
    def difference(self) -> Decimal:
        """How much more is billed than expected."""
        return (self.billed or ZERO) - (self.expected or ZERO)


def read_bill(text: str) -> list[BillRow]:
    """Read the rows of an export.

    Raises:
        UsageError: A column is missing, a cost is not a number, the currency is another one, or the
            rows are not of one month.
    """
    lines = text.splitlines()
    start = next((n for n, line in enumerate(lines) if "description" in line.lower()), 0)
    reader = csv.DictReader(lines[start:])
    named = {_column(f): f for f in reader.fieldnames or ()}
    service, sku = named.get("service_description"), named.get("sku_description")
    cost = named.get("unrounded_cost") or named.get("subtotal") or named.get("cost")
    absent = [n for n, f in (("service", service), ("SKU", sku), ("cost", cost)) if f is None]
    if service is None or sku is None or cost is None:
        raise UsageError(
            f"The bill has no column for {' and '.join(absent)}.",
            hint="Export the cost table of Cloud Billing grouped by SKU, with the columns "
            "`Service description`, `SKU description` and `Cost`.",
        )
    month = named.get("invoice_month", "")
    credits = [named[n] for n in ("credits", "credits_amount") if n in named]
    for number, line in enumerate(lines[:start], 1):
        if stated := re.match(r'"?currency"?\s*,\s*"?([^",]*)', line, re.IGNORECASE):
            _check_currency(stated[1], number)
    for column in (cost, *credits):
        if unit := re.search(r"\(([^)]*)\)\s*$", column):
            _check_currency(unit[1], start + 1)
    rows, months = [], set()
    for row in reader:
        if row.get(service) and row.get(sku):
            number = start + reader.line_num
            _check_currency(row.get(named.get("currency", "")) or CURRENCY, number)
            amounts = [_amount(row[cost] or "", number)]
            amounts += [_amount(row[column] or "0", number) for column in credits]
            rows.append(BillRow(row[service], row[sku], sum(amounts, ZERO)))
            months.add(row.get(month) or "")
    _check_extent(len(rows), months)
    return rows


def _check_extent(rows: int, months: Set[str]) -> None:
    """Check that a bill has rows, all of one month: the estimate is for one month."""
    if not rows:
        raise UsageError(
            "The bill has no row with a service and a SKU.",
            hint="Export the cost table of Cloud Billing grouped by SKU, for a month with costs.",
        )
    if len(months) > 1:
        found = ", ".join(sorted(month or "none" for month in months))
        raise UsageError(
            f"The bill has rows of {len(months)} months ({found}); the estimate is for one.",
            hint="Export it again for one invoice month.",
        )


def _column(title: str) -> str:
    """Return the name of a column: `Cost ($)` and `cost` are both `cost`."""
    return re.sub(r"[^a-z]+", "_", re.sub(r"\([^)]*\)\s*$", "", title.lower())).strip("_")


def _check_currency(text: str, number: int) -> None:
    """Check that amounts are in the currency of the price book."""
    if text.strip().upper() not in _DOLLARS:
        raise UsageError(
            f"Line {number} of the bill has the currency {text.strip()[:40]!r}; the estimate is "
            f"in {CURRENCY}, and amounts are not converted.",
            hint=f"Convert the costs and credits of the file to {CURRENCY}, and state {CURRENCY} "
            "as their currency.",
        )


def _amount(text: str, number: int) -> Decimal:
    text = text.strip()
    if _AMOUNT.fullmatch(text):
        amount = Decimal(text.replace(",", ""))
        if abs(amount) < _MAX_AMOUNT:
            return amount
    shown = text if len(text) <= 40 else f"{text[:40]}..."
    raise UsageError(
        f"Line {number} of the bill has no valid cost: {shown!r}. A cost is a number below "
        f"{_MAX_AMOUNT:.0e} such as 70.25, -3.1 or 1.5E-7.",
        hint="Export it again, with `.` before the decimals.",
    )


def reconcile(estimate: Estimate, bill: Iterable[BillRow], book: Book) -> list[Comparison]:
    """Compare each item; what only one side has is in the result, too."""
    prices = {p.item: p for p in book.prices if p.sku}
    billed: dict[str, list[Decimal]] = {}
    others: dict[str, list[Decimal]] = {}
    for row in bill:
        item = next((name for name, p in prices.items() if _matches(p, row)), None)
        group, key = (others, f"{row.service}: {row.sku}") if item is None else (billed, item)
        group.setdefault(key, []).append(row.cost)
    return [*_estimated(estimate, billed, prices), *_only_billed(estimate, billed, others)]


def _matches(price: Price, row: BillRow) -> bool:
    return bool(re.search(price.service, row.service) and re.search(price.sku, row.sku))


def _estimated(
    estimate: Estimate, billed: Mapping[str, list[Decimal]], prices: Mapping[str, Price]
) -> Iterator[Comparison]:
    """Yield the items of the estimate."""
    groups: dict[str, list[Line]] = {}
    for line in estimate.lines:
        groups.setdefault(line.price or line.item, []).append(line)
    for item, lines in groups.items():
        names = list(dict.fromkeys(line.item for line in lines))
        label = names[0] if len(names) == 1 else f"{item} ({', '.join(names)})"
        amount = cents(total(billed[item])) if item in billed else None
        note = "" if item in billed else "not billed"
        if not lines[0].known:
            yield Comparison(label, None, None, None, amount, "no price is recorded")
            continue
        if item not in prices:
            note = "not in the bill of Google Cloud"
        low, expected, high = (
            total(getattr(line, end) for line in lines) for end in ("low", "expected", "high")
        )
        yield Comparison(label, low, expected, high, amount, note)


def _only_billed(
    estimate: Estimate, billed: Mapping[str, list[Decimal]], others: Mapping[str, list[Decimal]]
) -> Iterator[Comparison]:
    """Yield what the estimate does not have."""
    known = {line.price for line in estimate.lines}
    rest = {item: costs for item, costs in billed.items() if item not in known}
    for item, costs in {**rest, **others}.items():
        if amount := cents(total(costs)):
            yield Comparison(item, None, None, None, amount, "not estimated")
