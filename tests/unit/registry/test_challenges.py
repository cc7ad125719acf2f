"""WWW-Authenticate headers, as registries send them and as RFC 9110 allows them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapwing.registry.tokens import Challenge, choose_challenge, parse_challenges

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
    assert parse_challenges(header) == found


def test_bearer_is_preferred_to_basic() -> None:
    chosen = choose_challenge('Basic realm="x", Bearer realm="https://y"')
    assert chosen is not None
    assert chosen.scheme == "bearer"
    assert choose_challenge('Digest realm="x"') is None
    assert choose_challenge("Bearer") is None


@given(st.text(alphabet='Bearbsic ,="\\x\t', max_size=200))
def test_any_header_is_parsed_without_error(header: str) -> None:
    parse_challenges(header)
