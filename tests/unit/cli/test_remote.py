"""Arguments that are sent to a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lapwing import server
from lapwing.cli.main import cli
from lapwing.cli.remote import PLACE, identity_from_stdin, without_place
from lapwing.cli.run import options_first

ROOT = click.Context(cli)


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
        ("logs -fe vps api -fCshop", "logs -f api -f"),
        ("logs -fevps -n 5 -- -e", "logs -f -n 5 -- -e"),
        ("up --output json shop", "up --output json"),
        ("deploy shop -e", "deploy shop"),
    ],
)
def test_folder_and_environment_are_left_out(given: str, sent: str) -> None:
    assert without_place(ROOT, given.split(), Path("shop")) == sent.split()


def options_of_forwarded_verbs() -> Iterator[tuple[str, str]]:
    """Every option with a value of the verbs that run on a server, but those left out."""
    for verb in sorted(server.VERBS):
        command = cli.get_command(ROOT, verb)
        assert command is not None
        inner = command.commands.values() if isinstance(command, click.Group) else ()
        for option in (p for c in (command, *inner) for p in c.params):
            if isinstance(option, click.Option) and not option.is_flag:
                yield from ((verb, name) for name in option.opts if name not in PLACE)


@pytest.mark.parametrize("value", ["-e", "-C shop", "-evps", "--env=x"])
@pytest.mark.parametrize(("verb", "option"), sorted(set(options_of_forwarded_verbs())))
def test_value_of_an_option_is_kept(verb: str, option: str, value: str) -> None:
    given = [verb, option, value]
    assert without_place(ROOT, [*given, "-e", "vps"], Path("shop")) == given


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
    assert (
        without_place(ROOT, ["run", *sent.split()], Path("shop"))[-1] == sent.rsplit(maxsplit=1)[-1]
    )


@pytest.mark.parametrize("given", ["--identity key", "--identity=key", "--identity -"])
def test_identity_is_sent_as_standard_input(given: str) -> None:
    sent = identity_from_stdin(["restore", "db", *given.split(), "--yes"])
    assert " ".join(sent).replace("=", " ") == "restore db --identity - --yes"
