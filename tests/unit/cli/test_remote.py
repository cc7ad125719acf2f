"""Arguments that are sent to a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.cli.remote import without_place


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("deploy -e vps", "deploy"),
        ("deploy api --env vps --hold -C shop", "deploy api --hold"),
        ("up shop --output json -e vps", "up --output json"),
        ("status -evps --output json", "status --output json"),
        ("logs --environment=vps api -Cshop -f", "logs api -f"),
        ("secret set -e vps NAME", "secret set NAME"),
        ("run api -e vps -- tool -e x -C y", "run api -- tool -e x -C y"),
    ],
)
def test_folder_and_environment_are_left_out(given: str, sent: str) -> None:
    assert without_place(given.split(), Path("shop")) == sent.split()
