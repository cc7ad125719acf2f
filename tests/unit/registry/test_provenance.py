"""The URL of the source in a provenance."""

from __future__ import annotations

import pytest

from lapwing.registry.attestations import source_uri


@pytest.mark.parametrize(
    ("remote", "uri"),
    [
        ("https://user:t0ken@git.example/a/b.git", "git+https://git.example/a/b.git"),
        ("https://t0ken@git.example/a/b.git", "git+https://git.example/a/b.git"),
        ("git@git.example:a/b.git", "git+ssh://git.example/a/b.git"),
        ("git.example:a/b.git", "git+ssh://git.example/a/b.git"),
        ("ssh://git@git.example:2222/a/b.git", "git+ssh://git.example:2222/a/b.git"),
    ],
)
def test_source_url_has_no_login(remote: str, uri: str) -> None:
    assert source_uri(remote) == uri
