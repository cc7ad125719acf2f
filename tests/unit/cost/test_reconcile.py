"""The rows of a bill: numbers are read as they are written, or refused."""

from __future__ import annotations

from decimal import Decimal

import pytest

from lapwing.cost.reconcile import read_bill
from lapwing.errors import UsageError

HEADER = "Service description,SKU description,Cost ($)\n"


@pytest.mark.parametrize(
    ("text", "cost"),
    [("70.25", "70.25"), ("-3", "-3"), ("1.5E-7", "1.5E-7"), ("2e3", "2000"), (" 0 ", "0"),
     ('"1,006.25"', "1006.25")],
)  # fmt: skip
def test_costs_are_read(text: str, cost: str) -> None:
    assert read_bill(f"{HEADER}a,b,{text}\n")[0].cost == Decimal(cost)


@pytest.mark.parametrize(
    "text",
    ["NaN", "inf", "-Infinity", "free", "1.2.3", '"1.234,56"', '"1,234"', "(12.5)", "1e400",
     "1e12", "--1", "1-2", "$5", "\u0661", "", "12 34", "5e"],
)  # fmt: skip
def test_other_costs_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="Line 3 of the bill has no valid cost") as caught:
        read_bill(f"{HEADER}a,b,1\na,b,{text}\n")
    assert repr(text.strip('"')) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Service description,SKU description,Cost (\u20ac)\na,b,1\n", 1),
        ("Service description,SKU description,Cost (EUR)\na,b,1\n", 1),
        ("Service description,SKU description,Cost,Currency\na,b,1,USD\na,b,1,EUR\n", 3),
        (f"Invoice number,1\nCurrency,EUR\n{HEADER}a,b,1\n", 2),
    ],
)
def test_other_currencies_are_refused(text: str, line: int) -> None:
    with pytest.raises(UsageError, match=f"Line {line} of the bill has the currency"):
        read_bill(text)


def test_dollars_may_be_stated() -> None:
    text = "Currency,USD\nService description,SKU description,Cost (USD),currency\na,b,1,USD\n"
    assert read_bill(text)[0].cost == 1


@pytest.mark.parametrize("rows", ["", ",,5\n"])
def test_bill_without_rows_is_refused(rows: str) -> None:
    with pytest.raises(UsageError, match="no row with a service and a SKU"):
        read_bill(HEADER + rows)


@pytest.mark.parametrize("title", ["Invoice month", "invoice.month"])
def test_bill_of_several_months_is_refused(title: str) -> None:
    header = HEADER.replace("Cost", f"Cost,{title}")
    assert read_bill(f"{header}a,b,1,202611\na,c,1,202611\n")
    with pytest.raises(UsageError, match=r"2 months \(202610, 202611\)"):
        read_bill(f"{header}a,b,1,202611\na,b,1,202610\n")
