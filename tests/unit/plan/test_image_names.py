"""Names of images that determine their content."""

from __future__ import annotations

import pytest

from lapwing.plan.names import release_of, split_digest

DIGEST = "3" * 64


@pytest.mark.parametrize(
    ("image", "expected", "release"),
    [
        (f"r.example/a/api@sha256:{DIGEST}", f"sha256:{DIGEST}", "api@333333333333"),
        (f"localhost/a/api:sha256-{DIGEST}", f"sha256:{DIGEST}", "api@333333333333"),
        ("r.example:5000/a/api:sha256-3.sig", "", "api:sha256-3.sig"),
        ("r.example/a/api", "", "api:latest"),
    ],
)
def test_digest_is_found_also_in_the_tag(image: str, expected: str, release: str) -> None:
    assert split_digest(image)[1] == expected
    assert release_of(image) == release
