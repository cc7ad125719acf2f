"""References to parts of resources: what is one, and what it becomes."""

from __future__ import annotations

import pytest

from lapwing.stack import resource_reference as reference

URL = "mysql://app:p%40ss@db.example:3307/shop"


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("host", "db.example"),
        ("port", "3307"),
        ("user", "app"),
        ("password", "p@ss"),
        ("database", "shop"),
        ("url", URL),
    ],
)
def test_part_of_url(part: str, value: str) -> None:
    assert reference.part_of(URL, "mysql", part) == value


def test_url_without_port_has_default_port() -> None:
    assert reference.part_of("redis://cache", "redis", "port") == "6379"


def test_reference_needs_name_and_part() -> None:
    text = "${db.host}:${db.port} ${HOME} ${a.b.c} $db.host ${Db.host}"
    assert list(reference.references(text)) == [("db", "host"), ("db", "port")]
    assert reference.expand(text, lambda name, part: f"<{name} {part}>") == (
        "<db host>:<db port> ${HOME} ${a.b.c} $db.host ${Db.host}"
    )


def test_pieces_split_text_and_references() -> None:
    text = "a${db.host}${db.port}b"
    assert list(reference.pieces(text)) == ["a", ("db", "host"), ("db", "port"), "b"]
