"""WWW-Authenticate headers, as registries send them and as RFC 9110 allows them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.registry.challenge import Challenge, choose, parse

HUB = (
    'Bearer realm="https://auth.example/token",service="registry.example",'
    'scope="repository:library/redis:pull,push"'
)


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (
            HUB,
            [
                Challenge(
                    "bearer",
                    "https://auth.example/token",
                    "registry.example",
                    "repository:library/redis:pull,push",
                )
            ],
        ),
        ('Basic realm="a, b"', [Challenge("basic", "a, b")]),
        ("BASIC realm=plain", [Challenge("basic", "plain")]),
        ("Basic", [Challenge("basic")]),
        (r'Basic realm="a \"quoted\" word"', [Challenge("basic", 'a "quoted" word')]),
        (
            'Basic realm="x", Bearer realm="y", service="z"',
            [Challenge("basic", "x"), Challenge("bearer", "y", "z")],
        ),
        (
            'Negotiate YWJj==, Bearer realm = "y" , error="invalid_token"',
            [Challenge("negotiate"), Challenge("bearer", "y", error="invalid_token")],
        ),
        ('Bearer realm="y",realm="z"', [Challenge("bearer", "y")]),
        ("", []),
        ('"', []),
    ],
)
def test_parse(header: str, found: list[Challenge]) -> None:
    assert parse(header) == found


def test_bearer_goes_before_basic() -> None:
    chosen = choose('Basic realm="x", Bearer realm="https://y"')
    assert chosen is not None
    assert chosen.scheme == "bearer"
    assert choose('Digest realm="x"') is None
    assert choose("Bearer") is None


@given(st.text(alphabet='Bearbsic ,="\\x\t', max_size=200))
def test_any_header_is_read(header: str) -> None:
    parse(header)
