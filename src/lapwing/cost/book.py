"""The price book: list prices with source and date, and the machine types of several providers.

Prices are data in `prices/`: `*.toml` has the items, `gcp-regions.csv` the prices that differ by
region, `machines.csv` the machine types, `sources.toml` where each comes from and when. A region
without a price is bounded by the lowest and the highest price of all regions; what has no price
anywhere is unknown, and nothing is guessed. See docs/how-to/add-a-price.md.

All amounts are US dollars, as Decimal.
"""

from __future__ import annotations

import csv
import functools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fnmatch import fnmatch
from typing import Any

from lapwing.system import package_data

CURRENCY = "USD"
HOURS = Decimal(730)
"""Hours of a month in cloud price lists."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where prices come from: the text, its reliability (see sources.toml), and its date."""

    text: str
    kind: str
    date: str


@dataclass(frozen=True, slots=True)
class Tier:
    """The price of each unit from `start` on: `low` to `high` where it is not exactly known."""

    start: Decimal
    low: Decimal
    high: Decimal


@dataclass(frozen=True, slots=True)
class Price:
    """The price of one unit of an item in some regions, or in all (`*`)."""

    item: str
    unit: str
    tiers: tuple[Tier, ...]
    source: Source
    regions: tuple[str, ...] = ("*",)
    free: Decimal = Decimal(0)
    """The monthly quantity that is free of charge; tiers begin above it."""
    note: str = ""
    service: str = ""
    sku: str = ""
    """Regular expressions of its rows in an export of the bill."""

    @property
    def low(self) -> Decimal:
        """The price of the first unit."""
        return self.tiers[0].low

    @property
    def high(self) -> Decimal:
        """The highest price of the first unit."""
        return self.tiers[0].high

    def cost(self, quantity: Decimal) -> tuple[Decimal, Decimal]:
        """Return the lowest and the highest price of a monthly quantity."""
        left = max(quantity - self.free, Decimal(0))
        ends = [*(t.start for t in self.tiers[1:]), left]
        low = high = Decimal(0)
        for tier, end in zip(self.tiers, ends, strict=True):
            part = max(min(left, end) - tier.start, Decimal(0))
            low, high = low + part * tier.low, high + part * tier.high
        return low, high


@dataclass(frozen=True, slots=True)
class MachineType:
    """A machine type; its price is per month. `disk` is GB and `transfer` TB that it includes."""

    provider: str
    name: str
    locations: tuple[str, ...]
    cpu: int
    memory: Decimal
    disk: Decimal | None
    transfer: Decimal | None
    price: Price
    arm: bool = False
    available: bool = True


@dataclass(frozen=True, slots=True)
class Discount:
    """The share that a commitment takes off, from `low` to `high`."""

    years: int
    low: Decimal
    high: Decimal
    source: Source


@dataclass(frozen=True, slots=True)
class Book:
    """All prices, discounts and machine types."""

    prices: tuple[Price, ...]
    discounts: tuple[Discount, ...] = ()
    machines: tuple[MachineType, ...] = ()

    def find(self, item: str, region: str) -> Price | None:
        """Return the price of an item in a region, or its bounds over all other regions."""
        known = [p for p in self.prices if p.item == item]
        for price in known:
            if any(fnmatch(region, pattern) for pattern in price.regions):
                return price
        return _bounded(known, region) if known else None

    def sources(self) -> dict[Source, int]:
        """Count the prices of each source, the oldest first."""
        found = [p.source for p in self.prices] + [m.price.source for m in self.machines]
        order = sorted(dict.fromkeys(found), key=lambda s: (s.date, s.text))
        return {source: found.count(source) for source in order}


def _bounded(known: list[Price], region: str) -> Price:
    """Combine the prices of other regions into one with bounds."""
    low, high = min(t.low for p in known for t in p.tiers), max(p.high for p in known)
    note = f"no price for {region or 'this region'}: between the lowest and the highest of others"
    return replace(known[0], tiers=(Tier(Decimal(0), low, high),), regions=(region,), note=note)


@functools.cache
def book() -> Book:
    """Load the prices that are part of Lapwing."""
    sources = {name: Source(**entry) for name, entry in _toml("sources.toml").items()}
    table = _csv("gcp-regions.csv")
    prices: list[Price] = []
    discounts: list[Discount] = []
    for name in ("gcp.toml", "atlas.toml", "machine.toml", "other-clouds.toml"):
        data = _toml(name)
        for entry in data["price"]:
            prices += _prices({**entry, "source": sources[entry["source"]]}, table)
        for entry in data.get("discount", ()):
            shares = (Decimal(entry["low"]), Decimal(entry["high"]))
            discounts.append(Discount(entry["years"], *shares, sources[entry["source"]]))
    loaded = Book(tuple(prices), tuple(discounts))
    return replace(loaded, machines=(*_machines(loaded), *_e2(loaded, table)))


def _toml(name: str) -> dict[str, Any]:
    return tomllib.loads(package_data.read("cost", f"prices/{name}"))


def _csv(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(package_data.read("cost", f"prices/{name}").splitlines()))


def _prices(entry: dict[str, Any], table: list[dict[str, str]]) -> Iterator[Price]:
    """Yield one price, or one for each group of regions of the table with the same amounts."""
    keys = ("item", "unit", "source", "note", "service", "sku")
    facts = {k: entry[k] for k in keys if k in entry} | {"free": Decimal(entry.get("free", "0"))}
    if not entry.get("table"):
        first = [("0", entry["price"], entry.get("ceiling", entry["price"]))]
        tiers = _tiers([*first, *entry.get("tiers", ())])
        yield Price(**facts, tiers=tiers, regions=tuple(entry.get("regions", "*")))
        return
    columns = [c for c in table[0] if c.partition("@")[0] == entry["item"]]
    groups: dict[tuple[str, ...], list[str]] = {}
    for row in table:
        if all(row[c] for c in columns):
            groups.setdefault(tuple(row[c] for c in columns), []).append(row["region"])
    starts = [column.partition("@")[2] or "0" for column in columns]
    for amounts, regions in groups.items():
        tiers = _tiers(list(zip(starts, amounts, strict=True)))
        yield Price(**facts, tiers=tiers, regions=tuple(regions))


def _tiers(rows: list[Any]) -> tuple[Tier, ...]:
    """Build tiers from [start, low] or [start, low, high]."""
    return tuple(Tier(Decimal(r[0]), Decimal(r[1]), Decimal(r[-1])) for r in rows)


def _machines(loaded: Book) -> Iterator[MachineType]:
    """Yield the types of machines.csv; an amount in euro is converted."""
    for row in _csv("machines.csv"):
        amount = Decimal(row["price"]) * (HOURS if row["per"] == "hour" else 1)
        note = ""
        if row["currency"] == "EUR":
            rate = loaded.find("euro", "")
            assert rate is not None
            amount *= rate.low
            note = f"{row['price']} EUR at {rate.low}"
        places = tuple(row["locations"].split())
        source = Source(row["source"], row["kind"], row["date"])
        price = Price(row["type"], "month", _tiers([("0", amount)]), source, places, note=note)
        yield MachineType(
            row["provider"], row["type"], places, int(row["cpu"]), Decimal(row["memory"]),
            Decimal(row["disk"]) if row["disk"] else None,
            Decimal(row["transfer"]) if row["transfer"] else None,
            price, row["arch"] == "arm", row["available"] != "no",
        )  # fmt: skip


E2 = {
    "e2-micro": (2, "1", "0.25"),
    "e2-small": (2, "2", "0.5"),
    "e2-medium": (2, "4", "1"),
    **{f"e2-standard-{n}": (n, str(4 * n), str(n)) for n in (2, 4, 8, 16, 32)},
}
"""vCPU, GiB and price as a multiple of `e2-medium` (Google Cloud, "E2 machine types")."""


def _e2(loaded: Book, table: list[dict[str, str]]) -> Iterator[MachineType]:
    """Yield the E2 family in each region: its prices are multiples of one of them."""
    for row in table:
        medium = loaded.find("machine.e2-medium", row["region"])
        if medium is None or not row["machine.e2-medium"]:
            continue
        for name, (cpu, memory, factor) in E2.items():
            multiple = medium.low * HOURS * Decimal(factor)
            regions = (row["region"],)
            price = replace(
                medium, item=name, unit="month", tiers=_tiers([("0", multiple)]), regions=regions
            )
            yield MachineType("gcp", name, regions, cpu, Decimal(memory), None, None, price)


@functools.cache
def included_storage(tier: str) -> int | None:
    """Return the storage in GB that a tier of MongoDB Atlas includes, if known."""
    facts = tomllib.loads(package_data.read("cost", "facts.toml"))
    included: dict[str, Any] = facts["atlas"]["included"]
    return int(included[tier]) if tier in included else None
