"""The rules for a customer's values, and CSV."""

import pytest
from customers import Fields, InvalidError, fold, parse, read_csv, write_csv

GOOD = {"name": "Ada", "email": "ada@example.com"}


def test_values_are_trimmed_and_completed() -> None:
    parsed = parse({"name": "  Ada ", "email": " ADA@Example.com", "note": "a\r\nb"})
    assert parsed == Fields("Ada", "ada@example.com", "", "lead", "a\nb")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"name": " "}, "name"),
        ({"name": "x" * 121}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "\ud800"}, "name"),
        ({"name": 7}, "name"),
        ({"email": ""}, "email"),
        ({"email": "ada"}, "email"),
        ({"email": "a da@example.com"}, "email"),
        ({"email": "ada@example"}, "email"),
        ({"email": None}, "email"),
        ({"status": "asleep"}, "status"),
        ({"status": ["lead"]}, "status"),
        ({"note": "x" * 2001}, "note"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_value_is_named(change: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidError) as caught:
        parse({**GOOD, **change})
    assert list(caught.value.errors) == [field]


def test_every_wrong_value_is_named_at_once() -> None:
    with pytest.raises(InvalidError) as caught:
        parse({"name": "", "email": "", "status": ""})
    assert sorted(caught.value.errors) == ["email", "name", "status"]


def test_folding_ignores_case_and_accents() -> None:
    assert fold("Zoë STRASSE") == fold("zoe Straße")


def test_csv_comes_back_as_it_went() -> None:
    rows = [parse({**GOOD, "name": "=1+1", "note": 'a "b"\nc, d'}), parse({**GOOD, "name": "Zoë"})]
    text = "".join(write_csv(rows))
    assert "\n'=1+1," in text, "a spreadsheet would run it"
    assert [row for _, row in read_csv(text)] == rows


def test_csv_names_the_line_that_is_wrong() -> None:
    text = "Email,Name\na@x.org,Ada\nb,Bob\nc@x.org\nd@x.org,Dan,more\n"
    rows = list(read_csv(text))
    assert [line for line, row in rows if isinstance(row, InvalidError)] == [3, 4, 5]


@pytest.mark.parametrize("text", ["", "name\nAda\n", "name,email,shoe\n", "\x00"])
def test_csv_without_a_usable_header_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        list(read_csv(text))
