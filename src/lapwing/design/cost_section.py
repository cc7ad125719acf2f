"""The section on cost: the estimate by part, options to save, the pie, and the assumptions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from lapwing.cost.budget import Budget
from lapwing.cost.estimate import SHARED
from lapwing.cost.ledger import Estimate, Line
from lapwing.cost.levers import Lever
from lapwing.cost.report import lever_rows, money, saving_note, sentence
from lapwing.design.diagrams.model import Amount
from lapwing.design.diagrams.pictures import cost_picture
from lapwing.design.parts import Bullets, Figure, Heading, Paragraph, Part, Table
from lapwing.design.subject import Subject, joined

_GIB = 2**30
_BYTES = ("sent", "received", "static", "nat", "images")
"""The assumptions about traffic that are sizes."""
_CATEGORIES = {
    "cluster": "cluster fee",
    "dns": "DNS",
    "edge": "edge (Envoy)",
    "network": "load balancer, NAT, endpoints",
    "overhead": "controllers",
    "pods": "ephemeral storage",
    "registry": "registry and scans",
    "rollouts": "second slots in rollouts",
}
"""What the parts of an estimate that are no services consist of."""


@dataclass(frozen=True, slots=True)
class Costs:
    """The estimate of an environment, the options to reduce it, and its budget.

    `together` is the estimate of all environments in a cloud, if there are several, and
    `more_levers` are the options that exist only for them together.
    """

    estimate: Estimate
    levers: Sequence[Lever] = ()
    together: Estimate | None = None
    more_levers: Sequence[Lever] = ()
    budget: Budget | None = None


def cost(subject: Subject, costs: Costs, *, brief: bool) -> Iterator[Part]:
    """Yield the section on cost."""
    yield Heading("Cost")
    estimate, budget = costs.estimate, costs.budget
    amounts, unknown = amounts_of(estimate)
    limit = f" The budget is {budget.amount:,.2f} US dollars per month." if budget else ""
    if not amounts:
        yield Paragraph("`lapwing cost` has no price for this environment." + limit)
        return
    name = subject.environment.name
    yield Paragraph(
        f"{name[:1].upper()}{name[1:]} costs {sentence(estimate)}{limit} Prices are list prices; "
        f"`lapwing cost -e {name}` lists every item with its assumption and its source."
    )
    if not brief:
        header = (f"Part of {name}, US dollars per month", "Low", "Expected", "High")
        yield Table(header, _parts(estimate))
        if len(amounts) > 1:
            yield Figure(cost_picture(subject, amounts, unknown))
        if costs.levers:
            yield Paragraph(saving_note(costs.levers))
            yield _savings(f"Savings option of {name}", costs.levers)
        if costs.together is not None:
            names = joined(x for x in costs.together.by("environment") if x != SHARED)
            yield Paragraph(
                f"{names[:1].upper()}{names[1:]} together cost {sentence(costs.together)} "
                "`lapwing cost` lists every item of them."
            )
            if costs.more_levers:
                yield _savings("Savings option of all environments together", costs.more_levers)
        if assumptions := tuple(_assumptions(subject, estimate)):
            yield Heading("Assumptions")
            yield Bullets(assumptions)


def _assumptions(subject: Subject, estimate: Estimate) -> Iterator[str]:
    usage = {k: v for k, v in subject.environment.usage if v is not None}
    stated = ", ".join(f"{name} {_usage(name, value)}" for name, value in usage.items())
    if stated:
        yield f"Usage per month: {stated}."
    yield from estimate.notes


def _usage(name: str, value: float) -> str:
    if name not in _BYTES:
        return f"{value:,.0f}"
    return f"{value / _GIB:,.{0 if value >= 100 * _GIB else 2}f} GiB".replace(".00", "")


def _savings(title: str, levers: Sequence[Lever]) -> Table:
    return Table((title, "US dollars per month", "Note"), tuple(lever_rows(levers)))


def amounts_of(estimate: Estimate) -> tuple[list[Amount], int]:
    """Add up the expected cost of each part, and count the lines without a price."""
    found: dict[str, float] = {}
    for line in estimate.lines:
        if line.expected is not None:
            found[line.part] = found.get(line.part, 0.0) + float(line.expected)
    unknown = sum(not line.known for line in estimate.lines)
    amounts = [(_CATEGORIES.get(part, part), round(a, 2)) for part, a in found.items()]
    return amounts, unknown


def _parts(estimate: Estimate) -> tuple[tuple[str, ...], ...]:
    parts = dict.fromkeys(line.part for line in estimate.lines)
    rows = []
    for part in parts:
        lines = [line for line in estimate.lines if line.part == part]
        amounts = _sums(lines)
        if set(amounts) != {"0.00"}:
            rows.append((_CATEGORIES.get(part, part), *amounts))
    return (*rows, ("total", *_sums(estimate.lines)))


def _sums(lines: Iterable[Line]) -> list[str]:
    """Add up low, expected and high of the lines with a price."""
    return [
        money(sum(known)) if (known := [a for a in column if a is not None]) else "unknown"
        for column in zip(*((x.low, x.expected, x.high) for x in lines), strict=True)
    ]
