"""The price book: dated list prices with their source.

Prices are data: `prices/*.toml`, one file for each kind of thing, read once. A price holds for the
regions that it names, `*` for all. Where there is none for a region there is no price: nothing is
carried over from a region nearby, and nothing is guessed. See docs/how-to/add-a-price.md.

All amounts are US dollars, as Decimal.
"""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from decimal import Decimal
from importlib import resources
from typing import Any, Literal

CURRENCY = "USD"
HOURS = Decimal(730)
"""Hours of a month, as cloud price lists count them."""

Kind = Literal["official", "derived", "third party", "unofficial"]


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one unit of an item in some regions.

    `kind` tells how far to trust it: the vendor's own page; derived from recorded answers of the
    vendor's catalogue; a third party's list; unofficial reports. `date` is when it was read. Of a
    price that is not `counted` the estimate tells, but does not add it.
    """

    item: str
    price: Decimal
    unit: str
    regions: tuple[str, ...]
    kind: Kind
    source: str
    date: str
    free: Decimal = Decimal(0)
    counted: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class Discount:
    """What a commitment of some years takes off, as a fraction."""

    years: int
    share: Decimal
    source: str
    date: str


@dataclass(frozen=True, slots=True)
class Book:
    """All prices and discounts."""

    prices: tuple[Price, ...]
    discounts: tuple[Discount, ...] = ()

    def find(self, item: str, region: str) -> Price | None:
        """The price of an item in a region; None where there is none."""
        for price in self.prices:
            if price.item == item and (region in price.regions or "*" in price.regions):
                return price
        return None

    def regions(self, item: str) -> list[str]:
        """Where an item has a price."""
        return sorted({r for p in self.prices if p.item == item for r in p.regions})


@functools.cache
def book() -> Book:
    """The prices that come with Lapwing."""
    prices: list[Price] = []
    discounts: list[Discount] = []
    for file in sorted(resources.files("lapwing.cost").joinpath("prices").iterdir(), key=str):
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        prices += [_price(entry) for entry in data.get("price", ())]
        for entry in data.get("discount", ()):
            discounts.append(Discount(**{**entry, "share": Decimal(entry["share"])}))
    return Book(tuple(prices), tuple(discounts))


def _price(entry: dict[str, Any]) -> Price:
    return Price(
        item=entry["item"],
        price=Decimal(entry["price"]),
        unit=entry["unit"],
        regions=tuple(entry["regions"]),
        kind=entry["kind"],
        source=entry["source"],
        date=entry["date"],
        free=Decimal(entry.get("free", "0")),
        counted=entry.get("counted", True),
        note=entry.get("note", ""),
    )
