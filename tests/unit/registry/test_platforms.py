"""Which platforms of images are the ones that are asked for."""

from __future__ import annotations

import pytest

from lapwing.registry.manifest import parse_platform


@pytest.mark.parametrize(
    ("found", "wanted", "matches"),
    [
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64/v9", "linux/arm64/v8", False),
        ("linux/arm64/v9", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v9", False),
        ("linux/arm64", "linux/aarch64", True),
        ("linux/amd64", "linux/amd64/v1", True),
        ("linux/amd64", "linux/amd64/v2", False),
        ("linux/amd64", "linux/x86_64", True),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/arm/v6", "linux/arm/v7", False),
        ("linux/arm/v7", "linux/arm/7", True),
        ("linux/arm/v6", "linux/arm", True),
        ("linux/arm/v6", "linux/armhf", False),
        ("linux/arm/v6", "linux/armel", True),
        ("linux/s390x", "linux/s390x", True),
        ("windows/amd64", "linux/amd64", False),
    ],
)
def test_match(found: str, wanted: str, matches: bool) -> None:
    assert parse_platform(found).matches(parse_platform(wanted)) is matches
