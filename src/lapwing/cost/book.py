"""The price book: list prices with source and date, and billing facts of clouds.

Prices are data: `prices/*.toml`, one file per category. A price applies to the regions that it
lists, `*` for all. A region without a price has none: no price of another region is used, and
nothing is guessed. See docs/how-to/add-a-price.md. `facts.toml` has the rules that a bill follows
from, such as Autopilot's limits.

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
"""Hours of a month in cloud price lists."""

Kind = Literal["official", "derived", "third party", "unofficial"]


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one unit of an item in some regions.

    `kind` is its reliability: the vendor's own page; derived from recorded responses of the
    vendor's catalog API; a third party's list; unofficial reports. `date` is when it was read. A
    price that is not `counted` is reported, but not added.
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
    """The discount of a commitment, as a fraction."""

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
        """Return the price of an item in a region, if there is one."""
        for price in self.prices:
            if price.item == item and (region in price.regions or "*" in price.regions):
                return price
        return None

    def regions(self, item: str) -> list[str]:
        """List the regions in which an item has a price."""
        return sorted({r for p in self.prices if p.item == item for r in p.regions})


@functools.cache
def book() -> Book:
    """Load the prices that are part of Lapwing."""
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


@functools.cache
def _facts() -> dict[str, Any]:
    text = resources.files("lapwing.cost").joinpath("facts.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def autopilot_limit(name: str) -> Decimal:
    """Return a limit of Autopilot: vCPU, GiB (MiB if the name says so), or GiB per vCPU."""
    return Decimal(_facts()["autopilot"][name])


def included_storage(tier: str) -> int | None:
    """Return the storage in GB that a tier of MongoDB Atlas includes, if known."""
    found: int | None = _facts()["atlas"]["included"].get(tier)
    return found
