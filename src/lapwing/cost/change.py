"""Stacks as they would be with one thing changed, and what that saves. Pure.

A lever is not a formula of its own: the stack is changed, estimated again, and the difference is
what the lever saves. So a lever can never disagree with the estimate. Where a price is unknown on
either side, what it saves is unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from lapwing.cost.book import Book
from lapwing.cost.estimate import estimate
from lapwing.cost.lines import Estimate, Line, cents, total
from lapwing.cost.sites import project_of
from lapwing.stack.load import LoadedStack


@dataclass(frozen=True, slots=True)
class Lever:
    """Something that would make the bill smaller: what it saves a month at the least and at the
    most, None where a price is unknown; `used` tells that the stack does it already."""

    name: str
    low: Decimal | None
    high: Decimal | None
    note: str
    used: bool = False


def levers(stacks: Sequence[LoadedStack], book: Book) -> list[Lever]:
    """What would save money, and what does already."""
    now = estimate(stacks, book)
    if not any(s.settings.cloud for s in stacks):
        return []
    return [
        *_spot(stacks, book, now),
        *_commitments(stacks, book, now),
        *_cdn(stacks, book, now),
        *_fewer_projects(stacks, book, now),
        *_scans(now),
    ]


def is_production(name: str) -> bool:
    """Whether an environment's name says that customers use it."""
    return name in ("live", "main") or name.startswith("prod")


def with_settings(loaded: LoadedStack, **changes: Any) -> LoadedStack:
    """The stack with other settings of its environment."""
    return dataclasses.replace(loaded, settings=loaded.settings.model_copy(update=changes))


def with_replicas(loaded: LoadedStack, least: int, most: int) -> LoadedStack:
    """The stack with the same number of replicas for every service."""
    services = {
        name: service.model_copy(
            update={
                "replicas": service.replicas.model_copy(update={"min": least, "max": most}),
            }
        )
        for name, service in loaded.stack.services.items()
    }
    return dataclasses.replace(loaded, stack=loaded.stack.model_copy(update={"services": services}))


def _spot(stacks: Sequence[LoadedStack], book: Book, now: Estimate) -> Iterator[Lever]:
    eligible = [
        s for s in stacks if s.settings.cloud is not None and not is_production(s.environment)
    ]
    if not eligible:
        return
    names = ", ".join(s.environment for s in eligible)
    used = all(s.settings.spot for s in eligible)
    changed = [with_settings(s, spot=not used) if s in eligible else s for s in stacks]
    other = estimate(changed, book)
    yield _difference(
        f"spot pods for {names}",
        (other, now) if used else (now, other),
        lambda line: line.environment in {s.environment for s in eligible},
        "may be taken away at any time; not for production",
        used=used,
    )


def _commitments(stacks: Sequence[LoadedStack], book: Book, now: Estimate) -> Iterator[Lever]:
    pods = [
        line
        for line in now.lines
        if line.item.endswith((": vCPU", ": memory")) and line.part != "rollouts"
    ]
    spot = {s.environment for s in stacks if s.settings.spot}
    steady = [line for line in pods if line.environment not in spot]
    if not steady:
        return
    always = total(line.low for line in steady)
    for discount in book.discounts:
        saves = cents(always * discount.share) if all(x.known for x in steady) else None
        years = f"{discount.years} year{'s' if discount.years > 1 else ''}"
        yield Lever(
            f"commitment for {years}",
            saves,
            saves,
            f"{discount.share:.0%} off what always runs; wait until the load is known",
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
    other = estimate(changed, book)
    yield _difference(
        "CDN for static files",
        (other, now) if used else (now, other),
        lambda line: line.part == "traffic",
        "data costs less from the CDN, and services are asked less",
        used=used,
    )


def _fewer_projects(stacks: Sequence[LoadedStack], book: Book, now: Estimate) -> Iterator[Lever]:
    clouds = [s for s in stacks if s.settings.cloud is not None]
    projects = list(dict.fromkeys(project_of(s) for s in clouds))
    if len(projects) < 2:
        return
    kept = next((project_of(s) for s in clouds if is_production(s.environment)), projects[0])
    region = next(s.settings.cloud.region for s in clouds if s.settings.cloud)
    changed = [
        with_settings(
            s, cloud=s.settings.cloud.model_copy(update={"project": kept, "region": region})
        )
        if s.settings.cloud is not None
        else s
        for s in stacks
    ]
    yield _difference(
        f"one cluster in place of {len(projects)}",
        (now, estimate(changed, book)),
        lambda line: line.part in ("cluster", "network"),
        "staging as a namespace beside production: cheaper, and less apart",
    )


def _scans(now: Estimate) -> Iterator[Lever]:
    scans = [line for line in now.lines if line.item == "Images scanned"]
    if scans:
        yield Lever(
            "scan images in the pipeline",
            total(line.low for line in scans),
            total(line.high for line in scans),
            "an open scanner in CI finds the same known vulnerabilities; the registry's scan bills "
            "each image",
        )


def _difference(
    name: str,
    estimates: tuple[Estimate, Estimate],
    about: Callable[[Line], bool],
    note: str,
    *,
    used: bool = False,
) -> Lever:
    """What the second estimate saves over the first; unknown if a line without a price is not the
    same on both sides."""
    dear, cheap = estimates
    unknown = [
        {(x.environment, x.item, x.quantity, x.quantity_high) for x in e.unknown if about(x)}
        for e in estimates
    ]
    if unknown[0] != unknown[1]:
        whys = [x.note for e in estimates for x in e.unknown if about(x) and "no price" in x.note]
        reason = f"; no price{whys[0].rpartition('no price')[2]}" if whys else ""
        return Lever(name, None, None, note + reason, used)
    saves = sorted((dear.low - cheap.low, dear.high - cheap.high))
    return Lever(name, saves[0], saves[1], note, used)
