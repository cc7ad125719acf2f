"""Format estimates as JSON data, table rows and Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from typing import Any

from lapwing.cost.book import Book
from lapwing.cost.estimate import SHARED
from lapwing.cost.ledger import Change, Estimate, Line
from lapwing.cost.levers import Lever
from lapwing.cost.reconcile import Comparison

HEADER = ("ITEM", "QUANTITY", "UNIT", "UNIT PRICE", "LOW", "EXPECTED", "HIGH", "SOURCE")


def as_data(estimate: Estimate, levers: Sequence[Lever] = ()) -> dict[str, Any]:
    """Convert an estimate to JSON data; amounts in dollars, None for unknown."""
    return {
        "environment": estimate.environment,
        "currency": estimate.currency,
        "low": _number(estimate.low),
        "expected": _number(estimate.expected),
        "high": None if estimate.expected is None else _number(estimate.high),
        "at_least": bool(estimate.unknown),
        "lines": [_line(line) for line in estimate.lines],
        "unpriced": [
            {"environment": line.environment, "item": line.item, "reason": line.note}
            for line in estimate.unknown
        ],
        "unknown": [line.item for line in estimate.unknown],
        "unstated": list(estimate.unstated),
        "environments": _groups(estimate, "environment"),
        "projects": _groups(estimate, "project"),
        "levers": [
            {**dataclasses.asdict(x), "low": _number(x.low), "high": _number(x.high)}
            for x in levers
        ],
        "notes": list(estimate.notes),
    }


def changes_as_data(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Convert changed lines to JSON data."""
    return [
        {
            "environment": change.environment,
            "item": change.item,
            "low": _number(change.low),
            "high": _number(change.high),
            "before": _line(change.before) if change.before else None,
            "after": _line(change.after) if change.after else None,
        }
        for change in changes
    ]


def sources_as_data(book: Book, today: date) -> list[dict[str, Any]]:
    """List the sources of a price book with their age in days, the oldest first."""
    return [
        {
            "source": source.text,
            "kind": source.kind,
            "date": source.date,
            "days": (today - _day(source.date)).days,
            "prices": count,
        }
        for source, count in book.sources().items()
    ]


def _day(text: str) -> date:
    """Return the first day of a year, a month or a day."""
    return date.fromisoformat(text + "-01-01"[len(text) - 4 :])


def comparison_as_data(found: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Convert the comparison with a bill to JSON data."""
    amounts = ("low", "expected", "high", "billed", "difference")
    return [
        {"item": x.item, **{a: _number(getattr(x, a)) for a in amounts}, "note": x.note}
        for x in found
    ]


def comparison_rows(found: Sequence[Comparison]) -> list[tuple[str, ...]]:
    """Format the comparison with a bill as table rows."""
    amounts = ("low", "expected", "high", "billed")
    return [
        (
            x.item,
            *("-" if getattr(x, a) is None else money(getattr(x, a)) for a in amounts),
            f"{x.difference:+,.2f}" if x.billed is not None else "-",
            x.note,
        )
        for x in found
    ]


def rows(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """Format lines as table rows; the last cell is the number of the price's source.

    Items are prefixed with the environment if there are several.
    """
    numbers = {source: number for number, source in enumerate(_sources(lines), 1)}
    several = len({line.environment for line in lines if line.environment != SHARED}) > 1
    return [
        (
            f"{line.environment}: {line.item}" if several else line.item,
            _range(line.quantity, line.quantity_high),
            line.unit,
            _unit_price(line),
            money(line.low),
            money(line.expected),
            money(line.high),
            f"[{numbers[_source(line)]}]" if line.source else "-",
        )
        for line in lines
    ]


def _unit_price(line: Line) -> str:
    if line.unit_price is None:
        return "unknown"
    high = line.unit_price_high
    return f"{line.unit_price:f}" + (f" to {high:f}" if high is not None else "")


def source_lines(lines: Sequence[Line]) -> list[str]:
    """List the numbered sources of the prices."""
    return [f"[{number}] {source}" for number, source in enumerate(_sources(lines), 1)]


def _sources(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(_source(line) for line in lines if line.source))


def _source(line: Line) -> str:
    return f"{line.source} ({line.kind}, {line.date})"


def sentence(estimate: Estimate) -> str:
    """Describe the total, and what is not in it."""
    count = len(estimate.unknown)
    if count and count == len(estimate.lines):
        return "unknown: Lapwing has no price for any line."
    text = f"{span(estimate.low, estimate.high)} US dollars per month"
    if any(line.environment == SHARED for line in estimate.lines):
        text += " with the shared project"
    if estimate.low != estimate.high:
        text += f", {money(estimate.expected)} expected"
    if count:
        text = f"at least {text}: {count} line{'s have' if count > 1 else ' has'} no price"
    if estimate.unstated:
        unset = len(estimate.unstated)
        text += f"{' and' if count else ', without'} {unset} unset usage setting{'s' * (unset > 1)}"
        text += " are not counted" if count else ""
    return text + "."


def group_rows(estimate: Estimate, key: str) -> list[tuple[str, ...]]:
    """Format name, low, expected and high of each `environment` or `project`, then the total.

    Empty if there is only one.
    """
    known = {getattr(line, key) for line in estimate.lines if line.known}
    groups = estimate.by(key)
    rows = [
        (name, *map(money, amounts)) if name in known else (name, "unknown", "unknown", "unknown")
        for name, amounts in groups.items()
    ]
    if len(rows) > 1 and known:
        name = "total, at least" if estimate.unknown else "total"
        rows.append((name, *map(money, (estimate.low, estimate.expected, estimate.high))))
    return rows if len(rows) > 1 else []


def unknown_notes(estimate: Estimate) -> list[str]:
    """Return a note for each item of unknown price, with its environments if there are several."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in estimate.unknown:
        found.setdefault((line.item, line.note), []).append(line.environment)
    several = len({line.environment for line in estimate.unknown}) > 1
    return [
        (f"{item} ({', '.join(dict.fromkeys(names))})" if several else item) + f": unknown; {note}"
        for (item, note), names in found.items()
    ]


def lever_rows(levers: Sequence[Lever]) -> list[tuple[str, str, str]]:
    """Format savings options as table rows."""
    return [
        (
            lever.name + (" (in use)" if lever.used else ""),
            "unknown" if lever.low is None or lever.high is None else span(lever.low, lever.high),
            lever.note,
        )
        for lever in levers
    ]


def saving_note(levers: Sequence[Lever]) -> str:
    """Explain the amounts of savings options."""
    if not any(lever.used for lever in levers):
        return "The savings options are not in the estimate."
    return (
        "The estimate includes the savings options in use: without one, it is higher by the amount "
        "of the option, or lower if that amount is negative."
    )


def change_rows(changes: Sequence[Change]) -> list[tuple[str, str, str, str]]:
    """Format changed lines as table rows."""
    return [
        (
            f"{change.environment}: {change.item}",
            _amounts(change.before),
            _amounts(change.after),
            signed(change.low, change.high),
        )
        for change in changes
    ]


def markdown(estimate: Estimate, levers: Sequence[Lever] = ()) -> str:
    """Format an estimate as Markdown."""
    summary = sentence(estimate)
    summary = summary[:1].upper() + summary[1:]
    text = f"## Cost of {estimate.environment}\n\n**{summary}**\n\n"
    header = ("Item", "Quantity", "Unit", "Unit price", "Low", "Expected", "High", "Source")
    text += table(header, rows(estimate.lines), right=(1, 3, 4, 5, 6))
    for key, title in (("environment", "Environment"), ("project", "Project")):
        cells = group_rows(estimate, key)
        if cells:
            text += "\n" + table((title, "Low", "Expected", "High"), cells, right=(1, 2, 3))
    if levers:
        text += "\n### Savings options\n\n"
        text += table(("Option", "Saving per month", "Note"), lever_rows(levers), right=(1,))
        text += f"\n{saving_note(levers)}\n"
    about = [f"{line.item}: {line.note}." for line in estimate.lines if line.note]
    unstated = [f"Not set, so not counted: {', '.join(estimate.unstated)}."]
    notes = [*estimate.notes, *(unstated if estimate.unstated else ()), *dict.fromkeys(about)]
    text += "\n### Notes\n\n" + "".join(f"- {_escape(n)}\n" for n in notes)
    if sources := _sources(estimate.lines):
        text += "\n### Price sources\n\n"
        text += "".join(f"{n}. {_escape(s)}\n" for n, s in enumerate(sources, 1))
    return text


def markdown_changes(changes: Sequence[Change], before: Estimate, after: Estimate) -> str:
    """Format the changes for a pull request, as Markdown."""
    more = signed(after.low - before.low, after.high - before.high)
    text = f"## Cost: {more} US dollars per month\n\n"
    text += f"{span(before.low, before.high)} before, {span(after.low, after.high)} after.\n"
    if note := unknowns(before, after):
        text += f"\n{note}\n"
    if changes:
        header = ("Item", "Before", "After", "Change")
        text += "\n" + table(header, change_rows(changes), right=(1, 2, 3))
    return text


def unknowns(before: Estimate, after: Estimate) -> str:
    """State how many lines have no price, so that the difference leaves them out."""
    counts = (len(before.unknown), len(after.unknown))
    if not any(counts):
        return ""
    return f"Lines without a price are not counted: {counts[0]} before, {counts[1]} after."


def table(header: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Format a Markdown table; `right` has the indexes of right-aligned columns."""
    rule = ["---:" if n in right else "---" for n in range(len(header))]
    lines = [header, rule, *([_escape(c) for c in row] for row in cells)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def money(amount: Decimal | None) -> str:
    """Format an amount, or `unknown`."""
    return "unknown" if amount is None else f"{amount:,.2f}"


def span(low: Decimal, high: Decimal) -> str:
    """Format a range of amounts, or a single amount.

    The range is in order also for a saving, of which the low end may be the greater amount.
    """
    ends = sorted({low, high})
    return " to ".join(money(end) for end in ends)


def signed(low: Decimal, high: Decimal) -> str:
    """Format a difference with its sign."""
    ends = sorted({low, high})
    return " to ".join("0.00" if end == 0 else f"{end:+,.2f}" for end in ends)


def quantity(value: Decimal) -> str:
    """Format a quantity with two decimals, or four below 1."""
    rounded = value.quantize(Decimal("0.01")) if value >= 1 else value.quantize(Decimal("0.0001"))
    text = f"{rounded:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _range(low: Decimal | None, high: Decimal | None) -> str:
    if low is None or high is None:
        return "unknown"
    return quantity(low) if low == high else f"{quantity(low)} to {quantity(high)}"


def _amounts(line: Line | None) -> str:
    if line is None:
        return "-"
    return "unknown" if line.low is None or line.high is None else span(line.low, line.high)


def _groups(estimate: Estimate, key: str) -> list[dict[str, Any]]:
    known = {getattr(line, key) for line in estimate.lines if line.known}
    return [
        {
            "name": name,
            "low": _number(low),
            "expected": _number(middle) if name in known else None,
            "high": _number(high) if name in known else None,
        }
        for name, (low, middle, high) in estimate.by(key).items()
    ]


def _line(line: Line) -> dict[str, Any]:
    data = dataclasses.asdict(line)
    keys = (
        "item", "quantity", "quantity_high", "unit", "unit_price", "unit_price_high", "low",
        "expected", "high", "source", "date", "kind", "note", "environment", "project", "part",
    )  # fmt: skip
    return {k: _number(data[k]) if isinstance(data[k], Decimal) else data[k] for k in keys}


def _number(value: Decimal | None) -> float | None:
    return None if value is None else float(value)


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
