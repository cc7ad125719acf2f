"""Arguments that are sent to a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from lapwing.cli.remote import without_place
from lapwing.cli.run import options_first


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


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("api ls", "-- api ls"),
        ("api -e vps ls -e x", "-e vps -- api ls -e x"),
        ("-e vps api -C shop -- -e", "-e vps -C shop -- api -e"),
        ("-evps --env=vps api sh -c x", "-evps --env=vps -- api sh -c x"),
        ("-- api ls -- -e", "-- api ls -- -e"),
        ("-e vps -- api ls", "-e vps -- api ls"),
        ("--help", "--help --"),
        ("api -e", "-e -- api"),
    ],
)
def test_options_after_the_command_belong_to_it(given: str, sent: str) -> None:
    valued = {"-e", "--env", "--environment", "-C", "--context"}
    assert options_first(given.split(), valued) == sent.split()
    assert without_place(["run", *sent.split()], Path("shop"))[-1] == sent.rsplit(maxsplit=1)[-1]
