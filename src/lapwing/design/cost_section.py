"""The section on cost: the estimate by part, options to save, the pie, and the assumptions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from lapwing.cost.ledger import Estimate, Line
from lapwing.cost.levers import Lever
from lapwing.cost.report import money, sentence, span
from lapwing.design.diagrams.model import Amount
from lapwing.design.diagrams.pictures import cost_picture
from lapwing.design.parts import Bullets, Figure, Heading, Paragraph, Part, Table
from lapwing.design.subject import Subject

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


def cost(
    subject: Subject, estimate: Estimate, levers: Sequence[Lever], *, brief: bool
) -> Iterator[Part]:
    """Yield the section on cost."""
    yield Heading("Cost")
    amounts, unknown = amounts_of(estimate)
    budget = subject.environment.budget
    limit = f" The budget is ${budget:,.2f} per month." if budget else ""
    if not amounts:
        yield Paragraph("`lapwing cost` has no price for this environment." + limit)
        return
    text = sentence(estimate)
    yield Paragraph(
        f"{text[:1].upper()}{text[1:]} Prices are list prices; `lapwing cost` lists every item "
        f"with its assumption and its source.{limit}"
    )
    if not brief:
        yield Table(("Part", "Low", "Expected", "High"), _parts(estimate))
        if levers:
            rows = tuple((x.name, _saving(x)) for x in levers)
            yield Table(("Savings option", "US dollars per month"), rows)
        yield Figure(cost_picture(subject, amounts, unknown))
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


def _saving(lever: Lever) -> str:
    if lever.low is None or lever.high is None:
        return "unknown"
    amount = span(lever.low, lever.high)
    return f"{amount} (in use)" if lever.used else amount


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
