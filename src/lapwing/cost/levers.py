"""Options to reduce the bill, used or not, each with its saving.

An option has no separate formula: the stack is changed and estimated again, and the difference is
the saving, so an option always agrees with the estimate. If a price is unknown on either side, the
saving is unknown. Where the estimate has a line for what an option avoids, the saving is that line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from lapwing.cost.alternatives import is_production, with_settings
from lapwing.cost.book import Book
from lapwing.cost.estimate import estimate
from lapwing.cost.ledger import BillingScope, Estimate, Ledger, Line, cents, total
from lapwing.cost.other_clouds import add_nodes, demand_of
from lapwing.inventory.read import read
from lapwing.stack.cloud import project_of
from lapwing.stack.load import LoadedStack

PODS = (": vCPU", ": memory")
"""The ends of the items of an estimate for pods."""


@dataclass(frozen=True, slots=True)
class Lever:
    """A way to reduce the bill, with its monthly saving; None if a price is unknown.

    `used` is whether the stack already uses it.
    """

    name: str
    low: Decimal | None
    high: Decimal | None
    note: str
    used: bool = False


def levers(stacks: Sequence[LoadedStack], book: Book) -> list[Lever]:
    """List the options to reduce the bill, used or not."""
    now = estimate(read(stacks), book)
    if not any(s.settings.cloud for s in stacks):
        return []
    return [
        *_spot(stacks, book, now),
        *_pay_per_pod(stacks, book, now),
        *_commitments(stacks, book, now),
        *_scaling(now),
        *_tiers(now),
        *_second_slots(stacks, now),
        *_cdn(stacks, book, now),
        *_nat(now),
        *_fewer_projects(stacks, book, now),
        *_scans(now),
    ]


def _spot(stacks: Sequence[LoadedStack], book: Book, now: Estimate) -> Iterator[Lever]:
    eligible = [
        s for s in stacks if s.settings.cloud is not None and not is_production(s.environment)
    ]
    if not eligible:
        return
    names = ", ".join(s.environment for s in eligible)
    used = all(s.settings.spot for s in eligible)
    changed = [with_settings(s, spot=not used) if s in eligible else s for s in stacks]
    found = read(changed)
    other = estimate(found, book)
    loses_standby = "; managed databases have no standby"
    has_managed = any(m.product for e in found.environments for m in e.facts.managed)
    yield _difference(
        f"spot pods for {names}",
        (other, now) if used else (now, other),
        lambda line: line.environment in {s.environment for s in eligible},
        "may be preempted at any time; not for production" + (loses_standby if has_managed else ""),
        used=used,
    )


def _pay_per_pod(stacks: Sequence[LoadedStack], book: Book, now: Estimate) -> Iterator[Lever]:
    """Compare with the nodes of GKE Standard that hold the pods, except those on spot capacity."""
    found = read([s for s in stacks if s.settings.cloud is not None and not s.settings.spot])
    if not found.projects:
        return
    nodes: list[Line] = []
    for project in found.projects:
        ledger = Ledger(book, BillingScope("", project.identity, project.region), nodes)
        add_nodes(ledger, "gcp", demand_of(found.members(project)))
    names = {e.name for e in found.environments}
    pods = [
        line
        for line in now.lines
        if line.environment in names and (line.item.endswith(PODS) or line.part == "pods")
    ]
    types = [line.item.removeprefix("Nodes: ") for line in nodes if line.item.startswith("Nodes: ")]
    yield _instead(
        "pay per pod (Autopilot)",
        (nodes, pods),
        f"instead of nodes of GKE Standard ({', '.join(dict.fromkeys(types)) or 'unknown'}), which "
        "the team would size and upgrade; without jobs",
    )


def _nat(now: Estimate) -> Iterator[Lever]:
    """Compare with a public address for each node, without a price for processed data."""
    nat = [line for line in now.lines if line.item.startswith("NAT")]
    prices = {line.project: line.unit_price for line in nat if line.item == "NAT address"}
    addresses = [
        dataclasses.replace(
            line,
            low=None if price is None else cents((line.quantity or 0) * price),
            high=None if price is None else cents((line.quantity_high or 0) * price),
        )
        for line in nat
        if line.item == "NAT gateway"
        for price in [prices[line.project]]
    ]
    if addresses:
        note = "instead of a public address for each node"
        yield _instead("shared NAT gateway", (addresses, nat), note)


def _instead(name: str, lines: tuple[Sequence[Line], Sequence[Line]], note: str) -> Lever:
    """Return an option in use, which saves the cost of the first lines minus that of the second."""
    other, used = lines
    if not all(line.known for line in (*other, *used)):
        return Lever(name, None, None, f"{note}; no price is recorded", used=True)
    saves = sorted(
        total(getattr(x, end) for x in other) - total(getattr(x, end) for x in used)
        for end in ("low", "high")
    )
    return Lever(name, saves[0], saves[1], note, used=True)


def _commitments(stacks: Sequence[LoadedStack], book: Book, now: Estimate) -> Iterator[Lever]:
    spot = {s.environment for s in stacks if s.settings.spot}
    steady = [
        line
        for line in now.lines
        if line.item.endswith(PODS) and line.part != "rollouts" and line.environment not in spot
    ]
    if not steady:
        return
    always = total(line.low for line in steady)
    for discount in book.discounts:
        known = all(x.known for x in steady)
        saves = [
            cents(always * share) if known else None for share in (discount.low, discount.high)
        ]
        years = f"{discount.years} year{'s' if discount.years > 1 else ''}"
        yield Lever(
            f"commitment for {years}",
            saves[0],
            saves[1],
            f"{discount.low:.0%} to {discount.high:.0%} off the low amount, by the kind of "
            "commitment; wait until the load is known",
        )


def _scaling(now: Estimate) -> Iterator[Lever]:
    """Compare with the maximum of replicas all month."""
    pods = [x for x in now.lines if x.item.endswith(PODS) and x.part != "rollouts" and x.known]
    saves = total(x.high for x in pods) - total(x.low for x in pods)
    if saves:
        note = "the maximum of replicas runs under load only"
        yield Lever("replicas scaled by load", Decimal(0), saves, note, used=True)


def _tiers(now: Estimate) -> Iterator[Lever]:
    scaled = [line for line in now.lines if ": auto-scaling to " in line.item]
    if scaled:
        yield Lever(
            "database tier scaled by load",
            Decimal(0),
            total(line.high for line in scaled),
            "MongoDB Atlas begins with the smaller tier",
            used=True,
        )


def _second_slots(stacks: Sequence[LoadedStack], now: Estimate) -> Iterator[Lever]:
    """Compare with both slots all month, as in two clusters."""
    slots = [line for line in now.lines if line.part == "rollouts"]
    places = {line.environment for line in slots}
    served = {
        (s.environment, name)
        for s in stacks
        for name, service in s.stack.services.items()
        if s.environment in places and service.kind in ("web", "static")
    }
    pods = [x for x in now.lines if (x.environment, x.part) in served and x.item.endswith(PODS)]
    if pods and all(line.known for line in (*slots, *pods)):
        yield Lever(
            "blue and green in one cluster",
            total(x.low for x in pods) - total(x.low for x in slots),
            total(x.high for x in pods) - total(x.high for x in slots),
            "the second slot runs during releases only, instead of all month",
            used=True,
        )


def _cdn(stacks: Sequence[LoadedStack], book: Book, now: Estimate) -> Iterator[Lever]:
    eligible = [
        s
        for s in stacks
        if s.settings.cloud is not None
        and s.settings.usage.static is not None
        and any(x.kind == "static" for x in s.stack.services.values())
    ]
    if not eligible:
        return
    used = all(s.settings.cdn for s in eligible)
    changed = [with_settings(s, cdn=not used) if s in eligible else s for s in stacks]
    other = estimate(read(changed), book)
    yield _difference(
        "CDN for static files",
        (other, now) if used else (now, other),
        lambda line: line.part == "traffic",
        "CDN egress is cheaper, and services get fewer requests",
        used=used,
    )


def _fewer_projects(stacks: Sequence[LoadedStack], book: Book, now: Estimate) -> Iterator[Lever]:
    clouds = [s for s in stacks if s.settings.cloud is not None]
    projects = list(dict.fromkeys(project_of(s.stack, s.environment) for s in clouds))
    if len(projects) < 2:
        return
    kept = next(
        (project_of(s.stack, s.environment) for s in clouds if is_production(s.environment)),
        projects[0],
    )
    region = next(s.settings.cloud.region for s in clouds if s.settings.cloud)
    together = {"project": kept, "region": region}
    changed = [
        with_settings(s, cloud=cloud.model_copy(update=together)) if cloud is not None else s
        for s in stacks
        for cloud in [s.settings.cloud]
    ]
    yield _difference(
        f"one cluster instead of {len(projects)}",
        (now, estimate(read(changed), book)),
        lambda line: line.part in ("cluster", "network", "overhead"),
        "staging as a namespace of the production cluster: cheaper, less isolated",
    )


def _scans(now: Estimate) -> Iterator[Lever]:
    scans = [line for line in now.lines if line.item == "Image scans"]
    if scans:
        yield Lever(
            "scan images in the pipeline",
            total(line.low for line in scans),
            total(line.high for line in scans),
            "an open-source scanner in CI finds the same vulnerabilities; the registry bills each "
            "scanned image",
        )


def _difference(
    name: str,
    estimates: tuple[Estimate, Estimate],
    concerns: Callable[[Line], bool],
    note: str,
    *,
    used: bool = False,
) -> Lever:
    """Compare the second estimate with the first.

    The saving is unknown if a line without a price differs between them.
    """
    expensive, cheap = estimates
    unknown = [
        {(x.environment, x.item, x.quantity, x.quantity_high) for x in e.unknown if concerns(x)}
        for e in estimates
    ]
    if unknown[0] != unknown[1]:
        reasons = [
            x.note for e in estimates for x in e.unknown if concerns(x) and "no price" in x.note
        ]
        reason = f"; no price{reasons[0].rpartition('no price')[2]}" if reasons else ""
        return Lever(name, None, None, note + reason, used)
    saves = sorted((expensive.low - cheap.low, expensive.high - cheap.high))
    return Lever(name, saves[0], saves[1], note, used)
